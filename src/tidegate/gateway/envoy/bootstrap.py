"""Envoy's bootstrap: where it listens for orders, and its clusters: the endpoints, the picker, the log of outcomes."""

from pathlib import Path

from tidegate.gateway.envoy.endpoints import CLUSTER
from tidegate.gateway.envoy.files import JsonObject, watched
from tidegate.gateway.names import AUTHZ_METADATA, DESTINATION, ENVOY_STARTED_AT

PICKER_CLUSTER = "picker"
LOG_CLUSTER = "log"

LOG_BUFFER_BYTES = 64 * 2**20
"""How much may wait for a picker that is away or stands still: some 50,000 requests."""
UNLIMITED = 1_000_000
"""Envoy's circuit breakers default to 1,024 (retries: 3); past it requests skip the picker or fail. Ours never trip."""

_POLICIES = "type.googleapis.com/envoy.extensions.load_balancing_policies"


def render_bootstrap(
    *,
    admin_socket: Path,
    picker_socket: Path,
    log_socket: Path,
    listeners: Path,
    endpoints: Path,
    steered: bool,
    now: float,
) -> JsonObject:
    """Return the bootstrap as a JSON object.

    `listeners` and `endpoints` are files that Envoy follows. `steered`: go where the picker says, least request where
    it says nothing; otherwise plain round robin, the yardstick. `now`: when this Envoy starts; seconds, monotonic.
    """
    return {
        "node": {"id": "tidegate", "cluster": "tidegate", "metadata": {ENVOY_STARTED_AT: now}},
        "admin": {"address": {"pipe": {"path": str(admin_socket)}}},
        "dynamic_resources": {"lds_config": watched(listeners)},
        "static_resources": {
            "clusters": [
                _endpoints_cluster(endpoints, steered=steered),
                _grpc_cluster(PICKER_CLUSTER, picker_socket),
                # Above its 1 MiB Envoy drops log entries without a word: of 800 requests with paths of 4 kB, which
                # ended while the picker stood still for 1.5 s, 269 were never told of.
                _grpc_cluster(LOG_CLUSTER, log_socket) | {"per_connection_buffer_limit_bytes": LOG_BUFFER_BYTES},
            ]
        },
    }


def _endpoints_cluster(endpoints: Path, *, steered: bool) -> JsonObject:
    return {
        "name": CLUSTER,
        "type": "EDS",
        "eds_cluster_config": {"service_name": CLUSTER, "eds_config": watched(endpoints)},
        # A connection that a full backlog drops is tried again by TCP after 1 s: let that attempt succeed.
        "connect_timeout": "1.5s",
        "circuit_breakers": _wide_open(),
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 5, "keepalive_probes": 3}
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http_protocol_options": {}},
                # Shorter than uvicorn's 5 s, so that we never reuse a connection just as the server closes it.
                "common_http_protocol_options": {"idle_timeout": "4s"},
            }
        },
        "load_balancing_policy": _override_host() if steered else _policy("round_robin", "RoundRobin"),
    }


def _override_host() -> JsonObject:
    """Go where the metadata says; walk its list on retries; fall back where there is none or it names a stranger.

    From metadata, never from a header: a header could come from the client.
    """
    return {
        "policies": [
            {
                "typed_extension_config": {
                    "name": "envoy.load_balancing_policies.override_host",
                    "typed_config": {
                        "@type": f"{_POLICIES}.override_host.v3.OverrideHost",
                        "override_host_sources": [
                            {"metadata": {"key": AUTHZ_METADATA, "path": [{"key": DESTINATION}]}}
                        ],
                        "fallback_policy": _policy("least_request", "LeastRequest"),
                    },
                }
            }
        ]
    }


def _policy(name: str, message: str) -> JsonObject:
    return {
        "policies": [
            {
                "typed_extension_config": {
                    "name": f"envoy.load_balancing_policies.{name}",
                    "typed_config": {"@type": f"{_POLICIES}.{name}.v3.{message}"},
                }
            }
        ]
    }


def _grpc_cluster(name: str, unix_socket: Path) -> JsonObject:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "circuit_breakers": _wide_open(),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(unix_socket)}}}}]}],
        },
    }


def _wide_open() -> JsonObject:
    limits = {
        "max_connections": UNLIMITED,
        "max_pending_requests": UNLIMITED,
        "max_requests": UNLIMITED,
        "max_retries": UNLIMITED,
    }
    return {"thresholds": [{"priority": "DEFAULT", **limits}, {"priority": "HIGH", **limits}]}
