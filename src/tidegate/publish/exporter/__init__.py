"""The exporter: publishes beside any server what its metrics lack, or its load in another engine's names.

Publishing path: GET → app → fetches.Fetches → scrape → rendering (composites, dialects) → exposition. `iterations`
reads the JSON of trtllm-serve.
"""
