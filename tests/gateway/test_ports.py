"""A port that is reserved goes to whom it is reserved for, before, while and after that one listens."""

import contextlib
import socket
import struct

import pytest

from tidegate.gateway.local import reserved_port
from tidegate.protocol.errors import ConfigError

IP_LOCAL_PORT_RANGE = 51
"""Which ports `bind` with 0 may choose from. Linux 6.3; Python has no name for it."""


def takes_a_free_one(among: int) -> bool:
    """Ask for any free port where only `among` is on offer."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            other.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("I", among << 16 | among))
        except OSError:
            pytest.skip("this kernel cannot narrow the range of one socket")
        with contextlib.suppress(OSError):
            other.bind(("127.0.0.1", 0))
            return True
    return False


def test_nobody_gets_it_who_takes_any_free_port() -> None:
    with reserved_port("127.0.0.1", 0, fix="") as port:
        assert not takes_a_free_one(port)
        with socket.create_server(("127.0.0.1", port)):
            assert not takes_a_free_one(port)
        assert not takes_a_free_one(port)
    assert takes_a_free_one(port)


@pytest.mark.parametrize("reuse_port", [False, True], ids=["as the picker", "as Envoy"])
def test_who_it_is_reserved_for_listens_and_is_reached(reuse_port: bool) -> None:
    with reserved_port("127.0.0.1", 0, fix="") as port:
        for _ in range(2):
            with (
                socket.create_server(("127.0.0.1", port), reuse_port=reuse_port) as server,
                socket.create_connection(("127.0.0.1", port), timeout=5) as client,
            ):
                accepted, peer = server.accept()
                accepted.close()
                assert peer == client.getsockname()


@pytest.mark.parametrize("reuse_port", [False, True], ids=["a server", "another Envoy"])
def test_one_that_somebody_listens_on_is_refused(reuse_port: bool) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=reuse_port) as taken,
        pytest.raises(ConfigError, match="Address already in use"),
        reserved_port("127.0.0.1", taken.getsockname()[1], fix=""),
    ):
        pass
