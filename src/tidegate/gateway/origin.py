"""Where requests come from, as the question about one and the log of its end both tell it."""

from collections.abc import Hashable

from envoy.config.core.v3 import address_pb2
from google.protobuf import timestamp_pb2


def origin_of(client: address_pb2.Address, started: timestamp_pb2.Timestamp) -> Hashable:
    """Return the client's address with the moment at which its request began, which Envoy gives in microseconds.

    It finds the decision of a request that Envoy logs without having read our answer; all others are found by our id.
    """
    return address_of(client), started.seconds, started.nanos


def address_of(address: address_pb2.Address) -> str:
    """Return `ip:port` (`[ip]:port` for IPv6) as the pool writes it; empty when it is none."""
    socket = address.socket_address
    if not socket.address:
        return ""
    ip = f"[{socket.address}]" if ":" in socket.address else socket.address
    return f"{ip}:{socket.port_value}"
