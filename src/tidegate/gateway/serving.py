"""Where the picker listens: gRPC for Envoy and for health checks, HTTP for people."""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import grpc
import grpc.aio
from aiohttp import web
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tidegate.gateway.ext_proc import SERVICE as EXT_PROC_SERVICE
from tidegate.protocol.errors import ConfigError

MAX_MESSAGE_BYTES = 16 * 2**20
"""grpc's 4 MiB would make a larger message fail, and its request go unpicked."""
DRAIN_S = 0.5
MAX_SOCKET_PATH_BYTES = 107
"""sockaddr_un has 108, with the zero at the end."""

LIVE = ("", "liveness")
READY = ("readiness", EXT_PROC_SERVICE)
"""Names that health checks ask for. Source: the Go endpoint picker."""


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen: a host and a port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the address of `HOST:PORT` (IPv6 in brackets) or `unix:PATH`; ConfigError when it is neither."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not 0 < len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
            problem = f"cannot listen on {text!r}: a unix socket's path has 1 to {MAX_SOCKET_PATH_BYTES} bytes"
            raise ConfigError(problem, fix="Give another path.")
        return Address(path=path)
    host, _, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not bare or set("[]") & set(bare) or (":" in host and bare == host) or not (port.isascii() and port.isdigit()):
        raise ConfigError(f"cannot listen on {text!r}", fix="The form is HOST:PORT, [IPV6]:PORT or unix:PATH.")
    if len(port) > 5 or int(port) > 65535:
        raise ConfigError(f"cannot listen on {text!r}: port out of range", fix="Ports go from 0 to 65535.")
    return Address(host=bare, port=int(port))


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
        bound.append(_with_port(address, port))
    await server.start()
    try:
        yield bound
    finally:
        await health_status.servicer.enter_graceful_shutdown()
        await server.stop(DRAIN_S)


@contextlib.asynccontextmanager
async def serving_http(application: web.Application, addresses: Sequence[Address]) -> AsyncIterator[Sequence[str]]:
    """Serve until the end of the block; yields and raises as `serving_grpc` does."""
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        bound = []
        for address in addresses:
            try:
                await _site(runner, address).start()
            except (OSError, UnicodeError) as error:  # a host name may be no name at all
                raise ConfigError(f"cannot listen on {address}: {error}", fix="Give another address.") from error
            name = runner.addresses[-1]  # of a unix socket its path, otherwise host and port
            bound.append(_with_port(address, 0 if address.path else name[1]))
        yield bound
    finally:
        await runner.cleanup()


def _site(runner: web.AppRunner, address: Address) -> web.BaseSite:
    return web.UnixSite(runner, address.path) if address.path else web.TCPSite(runner, address.host, address.port)


def _with_port(address: Address, port: int) -> str:
    return str(address if address.path else replace(address, port=port))
