"""The endpoint file: which servers our Envoy may send to. The only writer of Envoy's endpoints."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from tidegate.gateway.envoy.files import JsonObject, write_resources
from tidegate.pool.endpoint import Endpoint

CLUSTER = "endpoints"


def write_endpoints(path: Path, endpoints: Sequence[Endpoint]) -> None:
    """Replace the endpoint file. Envoy applies it within 0.1 s; streams to an endpoint that left may finish."""
    write_resources(path, [render_endpoints(endpoints)])


def read_addresses(path: Path) -> dict[str, str]:
    """Return the address of each host name in an endpoint file, IPv6 without brackets; empty when there is no such.

    What one picker found is what its successor starts with: while a name server is silent, Envoy keeps its endpoints.
    """
    try:
        written = msgspec.json.decode(path.read_bytes(), type=_Written)
    except (OSError, msgspec.DecodeError):
        return {}
    localities = [locality for assignment in written.resources for locality in assignment.endpoints]
    endpoints = [listed.endpoint for locality in localities for listed in locality.lb_endpoints]
    return {endpoint.hostname: endpoint.address.socket_address.address for endpoint in endpoints}


def render_endpoints(endpoints: Sequence[Endpoint]) -> JsonObject:
    """Return the load assignment of `endpoints`, as Envoy spells it."""
    return {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [{"lb_endpoints": [_lb_endpoint(endpoint) for endpoint in endpoints]}],
    }


def _lb_endpoint(endpoint: Endpoint) -> JsonObject:
    ip, _, port = endpoint.address.rpartition(":")
    socket_address = {"address": ip.strip("[]"), "port_value": int(port)}
    # Envoy makes nothing of the name; see read_addresses.
    return {"endpoint": {"hostname": endpoint.host, "address": {"socket_address": socket_address}}}


class _SocketAddress(msgspec.Struct):
    address: str


class _Address(msgspec.Struct):
    socket_address: _SocketAddress


class _Endpoint(msgspec.Struct):
    hostname: str
    address: _Address


class _LbEndpoint(msgspec.Struct):
    endpoint: _Endpoint


class _Locality(msgspec.Struct):
    lb_endpoints: list[_LbEndpoint]


class _Assignment(msgspec.Struct):
    endpoints: list[_Locality]


class _Written(msgspec.Struct):
    resources: list[_Assignment]
