"""A model server with in-flight batching, as one pure step().

Flow: Request → **BatchManager** (queue → batch ⇄ KvCache, timed by the CostModel) → Iteration → statistics.
In: requests, cancellations and the time. Out: who gets a token when, and TensorRT-LLM's iteration statistics.
"""
