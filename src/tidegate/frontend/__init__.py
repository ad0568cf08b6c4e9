"""The OpenAI-compatible HTTP API in front of a Generator."""
