"""The decision: filters, scorers and a picker over the pool's columns. Pure."""
