"""Where to listen, and HTTP there: for people, Prometheus and probes."""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from aiohttp import web

from tidegate.protocol.errors import ConfigError

DRAIN_S = 0.5
MAX_SOCKET_PATH_BYTES = 107
"""sockaddr_un has 108, with the zero at the end."""


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


@contextlib.asynccontextmanager
async def serving_http(application: web.Application, addresses: Sequence[Address]) -> AsyncIterator[Sequence[str]]:
    """Serve until the end of the block; yields the addresses, with the port that was found where 0 was given.

    Raises ConfigError when an address cannot be had.
    """
    runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=DRAIN_S)
    await runner.setup()
    try:
        bound = []
        for address in addresses:
            try:
                await _site(runner, address).start()
            except (OSError, UnicodeError) as error:  # a host name may be no name at all
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                raise ConfigError(f"cannot listen on {address}: {reason}", fix="Give another address.") from error
            name = runner.addresses[-1]  # of a unix socket its path, otherwise host and port
            bound.append(with_port(address, 0 if address.path else name[1]))
        yield bound
    finally:
        await runner.cleanup()


def _site(runner: web.AppRunner, address: Address) -> web.BaseSite:
    return web.UnixSite(runner, address.path) if address.path else web.TCPSite(runner, address.host, address.port)


def with_port(address: Address, port: int) -> str:
    """Return the address as text, with the port that was found where 0 was given."""
    return str(address if address.path else replace(address, port=port))
