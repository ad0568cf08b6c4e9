"""Envoy's listener: one route to the endpoints, the question to the picker, the log of outcomes."""

from collections.abc import Sequence

from tidegate.gateway.envoy.bootstrap import LOG_CLUSTER, PICKER_CLUSTER
from tidegate.gateway.envoy.endpoints import CLUSTER
from tidegate.gateway.envoy.files import JsonObject
from tidegate.gateway.envoy.usage import GENERATING_PATHS, usage_filters, usage_tags, without_plain_filter
from tidegate.gateway.names import DESTINATION, TTFT_TAG

CHECKED_BODY_BYTES = 65_536
"""How much of a body goes to the picker, which is asked when it is there: a slow upload is not picked for too early."""
PICK_TIMEOUT_S = 1.0
"""How long a request waits for a picker that hangs; then it is served unpicked."""
RETRIED_BODY_BYTES = 10 * 2**20
"""Larger bodies are not kept for a retry."""
IDLE_STREAM_S = 3600
"""Envoy's 5 minutes also cover a long prefill and an answer that is not streamed."""

_EXTENSIONS = "type.googleapis.com/envoy.extensions"


def render_listener(*, host: str, port: int, steered: bool, usage: bool = False) -> JsonObject:
    """Return the listener resource.

    `steered`: ask the picker for every request. `usage`: read token usage from the answers for the log.
    """
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "stream_idle_timeout": f"{IDLE_STREAM_S}s",
        "use_remote_address": True,
        # No client is internal: Envoy then drops the x-envoy-* headers that would change its retries and timeouts. An
        # empty list would mean its default, all private addresses; nobody has the broadcast address.
        "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
        "server_header_transformation": "PASS_THROUGH",
        "route_config": _routes(usage=usage),
        "http_filters": [*([_ask_picker()] if steered else []), *(usage_filters() if usage else []), _router()],
        "access_log": [_outcomes_log(usage_tags() if usage else [])],
    }
    return {
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "name": "gateway",
        "address": {"socket_address": {"address": host, "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _routes(*, usage: bool) -> JsonObject:
    to_endpoints = {"cluster": CLUSTER, "timeout": "0s", "retry_policy": _retries()}
    every_path: JsonObject = {"match": {"prefix": "/"}, "route": to_endpoints}
    generating: JsonObject = {"match": {"safe_regex": {"regex": GENERATING_PATHS}}, "route": to_endpoints}
    return {
        "name": "gateway",
        "virtual_hosts": [
            {
                "name": "gateway",
                "domains": ["*"],
                # A client must never choose its destination, nor a server learn of the picker. The second header is
                # what Envoy tells of external clients; x-forwarded-for says the same.
                "request_headers_to_remove": [DESTINATION, "x-envoy-external-address"],
                "request_body_buffer_limit": RETRIED_BODY_BYTES,
                "routes": [generating, every_path | without_plain_filter()] if usage else [every_path],
            }
        ],
    }


def _retries() -> JsonObject:
    """Another endpoint answers as long as no response header has gone out: a hard-killed server costs no request."""
    return {
        "retry_on": "connect-failure,refused-stream,reset-before-request,gateway-error",
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.01s"},
        # A dead endpoint has no active requests, which is what least request likes.
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        # Draws, not hosts: with three of four dead, five draws found the fourth too rarely for 4 % of the requests.
        "host_selection_retry_max_attempts": 30,
    }


def _ask_picker() -> JsonObject:
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {"envoy_grpc": {"cluster_name": PICKER_CLUSTER}, "timeout": f"{PICK_TIMEOUT_S}s"},
            "failure_mode_allow": True,
            "with_request_body": {
                "max_request_bytes": CHECKED_BODY_BYTES,
                "allow_partial_message": True,
                "pack_as_bytes": True,
            },
            # The only header the decision reads; Envoy sends method and path anyway.
            "allowed_headers": {"patterns": [{"exact": "content-length"}]},
        },
    }


def _router() -> JsonObject:
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"},
    }


def _outcomes_log(tags: Sequence[JsonObject]) -> JsonObject:
    # The response headers may come long before the first token, so their time is not the time to it.
    ttft = {"tag": TTFT_TAG, "value": "%COMMON_DURATION(DS_RX_END:US_RX_BODY_BEG:us)%"}
    return {
        "name": "envoy.access_loggers.http_grpc",
        "typed_config": {
            "@type": f"{_EXTENSIONS}.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "outcomes",
                "transport_api_version": "V3",
                "grpc_service": {"envoy_grpc": {"cluster_name": LOG_CLUSTER}},
                "buffer_flush_interval": "0.02s",
                "custom_tags": [ttft, *tags],
            },
            "additional_response_headers_to_log": ["content-type"],
        },
    }
