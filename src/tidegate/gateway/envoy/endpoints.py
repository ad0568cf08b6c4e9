"""The endpoint file: which servers our Envoy may send to. The only writer of Envoy's endpoints."""

from collections.abc import Sequence
from pathlib import Path

from tidegate.gateway.envoy.files import JsonObject, write_resources
from tidegate.pool.endpoint import Endpoint

CLUSTER = "endpoints"


def write_endpoints(path: Path, endpoints: Sequence[Endpoint]) -> None:
    """Replace the endpoint file. Envoy applies it within 0.1 s; streams to an endpoint that left may finish."""
    write_resources(path, [render_endpoints(endpoints)])


def render_endpoints(endpoints: Sequence[Endpoint]) -> JsonObject:
    """Return the load assignment of `endpoints`, as Envoy spells it."""
    return {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [{"lb_endpoints": [_lb_endpoint(endpoint.address) for endpoint in endpoints]}],
    }


def _lb_endpoint(address: str) -> JsonObject:
    ip, _, port = address.rpartition(":")
    socket_address = {"address": ip.strip("[]"), "port_value": int(port)}
    return {"endpoint": {"address": {"socket_address": socket_address}}}
