"""The addresses of host names, looked up again and again: containers come back under the same name elsewhere.

Signals path: host names → **addresses** → Discovery
"""

import asyncio
import socket
from collections.abc import Collection, Mapping

from tidegate.scrape.look_up import is_address

LOOK_UP_AGAIN_S = 30.0
"""How long an address is trusted. Look-ups go through the system's resolver, which may keep answers of its own."""


class Resolver:
    """Keeps the last address found, also when a later look-up fails; one look-up a name at a time."""

    def __init__(self, known: Mapping[str, str]) -> None:
        """`known`: addresses by host name that a predecessor found; used until a look-up gives others."""
        self._addresses = dict(known)
        self._problems: dict[str, str] = {}
        self._due: dict[str, float] = {}
        self._look_ups: dict[str, asyncio.Task[None]] = {}

    def address(self, host: str) -> str | None:
        """Return the host's address, IPv6 without brackets; None while there is none."""
        return self._addresses.get(host)

    def problem(self, host: str) -> str:
        """Return why a host has no address, in words."""
        return self._problems.get(host, "no address found yet")

    def follow(self, hosts: Collection[str], tasks: asyncio.TaskGroup) -> None:
        """Begin the look-ups that are due, as tasks of the group, and forget all other hosts."""
        now = asyncio.get_running_loop().time()
        for kept in (self._addresses, self._problems, self._due):
            for host in kept.keys() - set(hosts):
                del kept[host]
        for host in hosts:
            if host in self._look_ups or self._due.get(host, now) > now:
                continue
            if is_address(host):
                self._addresses[host] = host
            else:
                self._look_ups[host] = tasks.create_task(self._look_up(host), name=f"look up {host}")

    async def settle(self, patience_s: float) -> None:
        """Wait until every host has an address or has failed to get one, but not longer than `patience_s`."""
        first = [look_up for host, look_up in self._look_ups.items() if host not in self._addresses]
        if first:
            await asyncio.wait(first, timeout=patience_s)

    async def _look_up(self, host: str) -> None:
        # No timeout but the resolver's own: a few threads look up all names, and giving one up would not free its
        # thread, so that two names of a silent name server would soon keep all others from being found.
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:  # UnicodeError: a host name that IDNA cannot encode
            self._problems[host] = f"no address found ({error})"
            self._due[host] = loop.time()
        else:
            # IPv4 first: servers that listen on 0.0.0.0 are the rule, and localhost often names both.
            found.sort(key=lambda info: info[0] != socket.AF_INET)
            self._keep(host, [str(info[4][0]) for info in found])
            self._problems.pop(host, None)
            self._due[host] = loop.time() + LOOK_UP_AGAIN_S
        finally:
            del self._look_ups[host]

    def _keep(self, host: str, found: list[str]) -> None:
        # Name servers turn the order of several addresses round; one that still holds is no news.
        if self._addresses.get(host) not in found:
            self._addresses[host] = found[0]
