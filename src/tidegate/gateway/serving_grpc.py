"""The picker's gRPC: for Envoy, and for health checks."""

import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tidegate.gateway.ext_proc import SERVICE as EXT_PROC_SERVICE
from tidegate.gateway.serving_http import DRAIN_S, Address, with_port
from tidegate.protocol.errors import ConfigError

MAX_MESSAGE_BYTES = 16 * 2**20
"""grpc's 4 MiB would make a larger message fail, and its request go unpicked."""

LIVE = ("", "liveness")
READY = ("readiness", EXT_PROC_SERVICE)
"""Names that health checks ask for. Source: the Go endpoint picker."""


class Health:
    """What health checks are told: alive at once, ready when told so, neither when stopping."""

    def __init__(self) -> None:
        self.servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack aio

    async def started(self) -> None:
        """Alive, but no endpoints are known yet."""
        await self._set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self._set(READY, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def ready(self) -> None:
        """The endpoints are known."""
        await self._set(READY, health_pb2.HealthCheckResponse.SERVING)

    async def _set(self, services: Sequence[str], status: int) -> None:
        for service in services:
            await self.servicer.set(service, status)


@contextlib.asynccontextmanager
async def serving_grpc(
    addresses: Sequence[Address], handlers: Sequence["grpc.GenericRpcHandler[object, object]"], health_status: Health
) -> AsyncIterator[Sequence[str]]:
    """Serve until the end of the block; yields the addresses, with the port that was found where 0 was given.

    Raises ConfigError when an address cannot be had.
    """
    # Two processes on one port would each get some of the requests.
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(handlers)
    health_pb2_grpc.add_HealthServicer_to_server(health_status.servicer, server)
    bound = []
    for address in addresses:
        try:
            port = server.add_insecure_port(str(address))
        except RuntimeError as error:
            fix = (
                "Is there the directory?" if address.path else "Is the port in use, or the address not of this machine?"
            )
            raise ConfigError(f"cannot listen on {address}", fix=fix) from error
        bound.append(with_port(address, port))
    await server.start()
    try:
        yield bound
    finally:
        await health_status.servicer.enter_graceful_shutdown()
        await server.stop(DRAIN_S)
