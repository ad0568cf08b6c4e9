"""The model server's side: batch-manager statistics become the composite metrics."""
