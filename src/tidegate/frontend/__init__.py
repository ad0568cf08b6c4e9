"""The OpenAI-compatible HTTP API in front of a Generator.

Flow: HTTP request → body → GenerationRequest → **Generator** → pieces → JSON or server-sent events.
What generates (a simulated batch manager) and what speaks HTTP know each other only by `generator.Generator`.
"""
