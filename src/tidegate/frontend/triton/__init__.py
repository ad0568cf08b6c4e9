"""The generator whose answers come from a Triton, over KServe's gRPC protocol.

Flow: GenerationRequest → **inputs of the model** → one gRPC stream → outputs of the model → Piece. What a model takes
and gives is read from its metadata; only `client` knows tritonclient.
"""
