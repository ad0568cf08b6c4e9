"""A model server with in-flight batching, as one pure step()."""
