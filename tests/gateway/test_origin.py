"""Where a request came from is the same to the question about it and to the log of its end, and nobody else's."""

import pytest
from envoy.config.core.v3 import address_pb2
from google.protobuf import timestamp_pb2

from factories import NOW, endpoint
from tidegate.gateway.origin import address_of, origin_of
from tidegate.pool.table import Pool

BEGAN = timestamp_pb2.Timestamp(seconds=1_795_601_374, nanos=865_823_000)


def socket(ip: str, port: int = 36606) -> address_pb2.Address:
    """Return an address as Envoy tells it."""
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=ip, port_value=port))


def later(*, seconds: int = 0, microseconds: int = 0) -> timestamp_pb2.Timestamp:
    """Return a moment after BEGAN."""
    return timestamp_pb2.Timestamp(seconds=BEGAN.seconds + seconds, nanos=BEGAN.nanos + 1000 * microseconds)


class TestOrigin:
    def test_one_request_has_one_origin_whoever_tells_it(self) -> None:
        assert origin_of(socket("127.0.0.1"), BEGAN) == origin_of(socket("127.0.0.1"), later())

    @pytest.mark.parametrize("began", [later(microseconds=1), later(seconds=1)])
    def test_requests_of_one_connection_differ_even_within_a_second(self, began: timestamp_pb2.Timestamp) -> None:
        assert origin_of(socket("127.0.0.1"), BEGAN) != origin_of(socket("127.0.0.1"), began)

    @pytest.mark.parametrize("other", [socket("127.0.0.2"), socket("127.0.0.1", 36607), socket("::1")])
    def test_requests_of_one_moment_differ_by_their_connection(self, other: address_pb2.Address) -> None:
        assert origin_of(socket("127.0.0.1"), BEGAN) != origin_of(other, BEGAN)

    def test_the_end_of_a_request_finds_its_own_dispatch_among_those_of_its_connection(self) -> None:
        pool = Pool(stale_after_s=1)
        pool.set_endpoints([endpoint()])
        moments = [later(microseconds=n) for n in range(3)]
        for number, began in enumerate(moments):
            pool.dispatch(0, f"ours-{number}", now=NOW, prompt_tokens=0, origin=origin_of(socket("::1"), began))

        pool.release_from(origin_of(socket("::1"), moments[1]), now=NOW)

        assert [pool.release(f"ours-{n}", now=NOW, answered_by=None) for n in range(3)] == [True, False, True]


class TestAddress:
    @pytest.mark.parametrize(
        ("ip", "written"),
        [
            ("10.0.0.1", "10.0.0.1:8000"),
            ("::1", "[::1]:8000"),
            ("fd00::1", "[fd00::1]:8000"),
            ("::ffff:10.0.0.1", "[::ffff:10.0.0.1]:8000"),
        ],
    )
    def test_it_is_written_as_the_pool_writes_it(self, ip: str, written: str) -> None:
        assert address_of(socket(ip, 8000)) == written

    @pytest.mark.parametrize("nowhere", [address_pb2.Address(), address_pb2.Address(pipe={"path": "/tmp/x"})])
    def test_what_has_no_ip_has_no_address(self, nowhere: address_pb2.Address) -> None:
        assert address_of(nowhere) == ""
