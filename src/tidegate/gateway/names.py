"""Names that Envoy's configuration and our answers to Envoy must agree on."""

DESTINATION = "x-gateway-destination-endpoint"
"""The pick: `ip:port`, or several comma-separated in order of preference. Source: GIE proposal 004."""
DECISION_ID = "tidegate-decision"
"""Our id of a decision, in the dynamic metadata; comes back in the access log."""
AUTHZ_METADATA = "envoy.filters.http.ext_authz"
"""Where Envoy keeps the dynamic metadata of a Check's answer."""
