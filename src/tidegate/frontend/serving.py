"""Runs the HTTP API as a process: a listening socket, signals, an orderly end."""

import asyncio
import contextlib
import errno
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from tidegate.protocol.errors import ConfigError

GRACE_S = 0.5
"""How long after SIGTERM running requests may still finish; then they end with an error."""

_CANCEL_AFTER_S = 1
"""When uvicorn cancels what has not ended by itself, such as a body that never comes. It takes whole seconds."""
_KEEP_ALIVE_S = 300
"""Longer than a gateway keeps an idle connection: whoever closes first must not be the server."""


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises ConfigError when that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            fix = "Stop what listens there, or take another with --port (0: any free one)."
            raise ConfigError(f"port {port} of {host} is in use", fix=fix) from error
        reason = error.strerror or error
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}", fix="See --host and --port.") from error


def url_of(listener: socket.socket) -> str:
    """Return where a socket listens, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    drive: Coroutine[Any, Any, None],
    on_listening: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM; `drive` runs alongside, and its failure ends the server.

    After a signal, requests have GRACE_S to finish before `drive` is cancelled. Returns within two seconds.
    """
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_CANCEL_AFTER_S,
    )
    async with asyncio.TaskGroup() as tasks:
        driver = tasks.create_task(drive, name="generate")
        server = _Server(config, on_listening=on_listening, on_grace_over=driver.cancel)
        await server.serve(sockets=[listener])
        driver.cancel()


class _Server(uvicorn.Server):
    """Handles signals through the event loop, and does not raise them again after an orderly end."""

    def __init__(
        self, config: uvicorn.Config, *, on_listening: Callable[[], None], on_grace_over: Callable[[], object]
    ) -> None:
        super().__init__(config)
        self._on_listening = on_listening
        self._on_grace_over = on_grace_over

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_listening()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.should_exit = True
        # What is cut off from now on is cut off on purpose: not worth an error line for each stream.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        asyncio.get_running_loop().call_later(GRACE_S, self._on_grace_over)
