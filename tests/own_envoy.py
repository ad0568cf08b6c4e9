"""Our own Envoy, real, in front of services that run inside the test: for answers that no real picker gives."""

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
from envoy.service.auth.v3 import external_auth_pb2 as auth

from processes import free_port, listens, until
from servers import ModelServer
from tidegate.gateway.access_log import AccessLogService
from tidegate.gateway.envoy.binary import find_envoy
from tidegate.gateway.envoy.bootstrap import render_bootstrap
from tidegate.gateway.envoy.endpoints import write_endpoints
from tidegate.gateway.envoy.files import write_json, write_resources
from tidegate.gateway.envoy.listener import render_listener
from tidegate.gateway.ext_authz import AuthorizationService
from tidegate.gateway.process import Program, running
from tidegate.picker.director import Director
from tidegate.picker.profile import default_profile
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.outcomes import Outcome, Outcomes
from tidegate.pool.table import Pool


@contextlib.asynccontextmanager
async def own_envoy(
    directory: Path,
    endpoints: Sequence[Endpoint],
    services: Iterable["grpc.GenericRpcHandler[object, object]"],
    *,
    usage: bool = False,
) -> AsyncIterator[str]:
    """Run it as `tidegate up` does; yields its URL."""
    picker_socket, admin_socket = directory / "picker.sock", directory / "admin.sock"
    listeners, members = directory / "listeners" / "l.json", directory / "endpoints" / "e.json"
    for file in (listeners, members):
        file.parent.mkdir()
    port = free_port()
    write_resources(listeners, [render_listener(host="127.0.0.1", port=port, steered=True, usage=usage)])
    write_endpoints(members, endpoints)
    bootstrap = render_bootstrap(
        admin_socket=admin_socket,
        picker_socket=picker_socket,
        log_socket=picker_socket,
        listeners=listeners,
        endpoints=members,
        steered=True,
        now=time.monotonic(),
    )
    write_json(directory / "bootstrap.json", bootstrap)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(tuple(services))
    assert server.add_insecure_port(f"unix:{picker_socket}")
    await server.start()
    argv = [str(find_envoy()), "--config-path", str(directory / "bootstrap.json"), "--disable-hot-restart"]
    try:
        async with running(Program("envoy", [*argv, "--log-level", "warning"], directory / "envoy.log")):
            await until(functools.partial(listens, port))
            yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)


def endpoint_of(server: ModelServer) -> Endpoint:
    """Return the server as discovery names it."""
    return Endpoint(name=server.name, host="127.0.0.1", port=server.port, address=server.address)


Answered = Callable[[auth.CheckResponse], Awaitable[auth.CheckResponse]]


class RecordedOutcomes(Outcomes):
    """Remembers each outcome."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.taken: list[Outcome] = []

    def take(self, outcome: Outcome, now: float) -> None:
        self.taken.append(outcome)
        super().take(outcome, now)


class ReachingBack(AuthorizationService):
    """Decides as always; what becomes of the answer then, the test says."""

    on_its_way: Answered | None = None
    hangs = False
    """Whether it decides nothing."""

    def __init__(self, director: Director, clock: Callable[[], float]) -> None:
        super().__init__(director, clock)
        self.asked: list[auth.CheckRequest] = []

    async def check(self, request: auth.CheckRequest, context: object) -> auth.CheckResponse:
        self.asked.append(request)
        if self.hangs:
            await asyncio.get_running_loop().create_future()
        answer = await super().check(request, context)
        return answer if self.on_its_way is None else await self.on_its_way(answer)


class ObservedEnvoy:
    """An Envoy, a pool, and what the log told."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.pool = Pool(stale_after_s=60)
        self.pool.set_endpoints(endpoints)
        self.outcomes = RecordedOutcomes(self.pool)
        rng = np.random.default_rng(1)
        director = Director(self.pool, default_profile(), destinations=2, tracked=True, rng=rng, id_prefix="ours-")
        self.authorization = ReachingBack(director, time.monotonic)
        self.access_log = AccessLogService(self.outcomes, time.monotonic)
        self.url = ""

    async def told(self, count: int = 1) -> list[Outcome]:
        """Wait until so many outcomes are told; nothing is in flight then."""

        async def are_told() -> bool:
            return len(self.outcomes.taken) >= count

        await until(are_told)
        assert self.pool.view(time.monotonic()).in_flight.tolist() == [0] * len(self.pool.endpoints)
        assert len(self.outcomes.taken) == count
        return self.outcomes.taken

    async def in_flight(self) -> int:
        """Return how many requests are counted at some endpoint."""
        return int(self.pool.view(time.monotonic()).in_flight.sum())


@contextlib.asynccontextmanager
async def observed_envoy(
    directory: Path, *members: ModelServer | Endpoint, usage: bool = False
) -> AsyncIterator[ObservedEnvoy]:
    """Run it in front of these."""
    endpoints = [endpoint_of(member) if isinstance(member, ModelServer) else member for member in members]
    running = ObservedEnvoy(endpoints)
    services = [running.authorization.handler(), running.access_log.handler()]
    async with own_envoy(directory, endpoints, services, usage=usage) as url:
        running.url = url
        yield running
