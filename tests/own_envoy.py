"""Our own Envoy, real, in front of services that run inside the test: for answers that no real picker gives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

import grpc
import grpc.aio

from processes import until
from servers import ModelServer
from tidegate.gateway.envoy.binary import find_envoy
from tidegate.gateway.envoy.bootstrap import render_bootstrap
from tidegate.gateway.envoy.endpoints import write_endpoints
from tidegate.gateway.envoy.files import write_json, write_resources
from tidegate.gateway.envoy.listener import render_listener
from tidegate.gateway.local import free_port
from tidegate.gateway.process import Program, running
from tidegate.pool.endpoint import Endpoint


@contextlib.asynccontextmanager
async def own_envoy(
    directory: Path, endpoints: Sequence[Endpoint], services: Iterable["grpc.GenericRpcHandler[object, object]"]
) -> AsyncIterator[str]:
    """Run it as `tidegate up` does; yields its URL."""
    picker_socket, admin_socket = directory / "picker.sock", directory / "admin.sock"
    listeners, members = directory / "listeners" / "l.json", directory / "endpoints" / "e.json"
    for file in (listeners, members):
        file.parent.mkdir()
    port = free_port("127.0.0.1", 0, fix="")
    write_resources(listeners, [render_listener(host="127.0.0.1", port=port, steered=True)])
    write_endpoints(members, endpoints)
    bootstrap = render_bootstrap(
        admin_socket=admin_socket,
        picker_socket=picker_socket,
        listeners=listeners,
        endpoints=members,
        steered=True,
    )
    write_json(directory / "bootstrap.json", bootstrap)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(services))
    assert server.add_insecure_port(f"unix:{picker_socket}")
    await server.start()
    argv = [str(find_envoy()), "--config-path", str(directory / "bootstrap.json"), "--disable-hot-restart"]
    try:
        async with running(Program("envoy", [*argv, "--log-level", "warning"], directory / "envoy.log")):
            await until(lambda: _listens(port))
            yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def endpoint_of(server: ModelServer) -> Endpoint:
    """Return the server as discovery names it."""
    return Endpoint(name=server.name, host="127.0.0.1", port=server.port, address=server.address)
