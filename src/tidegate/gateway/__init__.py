"""The edges of the request and outcome flows: Envoy, its questions, its access log."""
