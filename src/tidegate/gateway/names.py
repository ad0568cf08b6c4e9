"""Names that Envoy's configuration and our answers to Envoy must agree on."""

DESTINATION = "x-gateway-destination-endpoint"
"""The pick: `ip:port`, or several comma-separated in order of preference. Source: GIE proposal 004."""
DECISION_ID = "tidegate-decision"
"""Our id of a decision, in the dynamic metadata; comes back in the access log."""
AUTHZ_METADATA = "envoy.filters.http.ext_authz"
"""Where Envoy keeps the dynamic metadata of a Check's answer."""

ENVOY_STARTED_AT = "started_at"
"""In the metadata of our Envoy's node, which comes with its log: when it was started; seconds, monotonic."""
TTFT_TAG = "ttft_us"
"""Custom tag of the access log: from the request's last byte to the answer's first; microseconds."""
USAGE_TAGS = ("prompt_tokens", "completion_tokens", "cached_tokens")
"""Custom tags of the access log, each named as its field of TokenUsage."""

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET = "x-gateway-destination-endpoint-subset"
"""The endpoints that another gateway allows: a list of `ip:port` in that namespace. Source: GIE proposal 004."""
LB_METADATA = "envoy.lb"
"""Where other gateways look for the pick, besides the header."""
DROP_REASON = "x-llm-d-request-dropped-reason"
"""Response header that says why a request was refused. Source: the Go endpoint picker."""
