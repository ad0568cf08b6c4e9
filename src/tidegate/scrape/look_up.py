"""The addresses of one host, looked up by one question at a time."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence


class LookUp:
    """Asks for the addresses of a host whenever they are wanted, but never while an earlier question is open.

    A question goes to a thread of the event loop's few, which no timeout can end. Were each attempt to ask anew, a
    silent name server would soon hold them all, and with them every other look-up of the process.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._literal = is_address(host)
        self._open: asyncio.Task[Sequence[str] | OSError | UnicodeError] | None = None

    async def addresses(self) -> Sequence[str]:
        """Return the present addresses, the system's preferred first; at least one.

        Cancelling leaves the question open: the next call takes its answer, even if that has come meanwhile.

        Raises:
            OSError: there are none, or they could not be looked up.
            UnicodeError: the host name cannot be encoded for DNS.
        """
        if self._literal:
            return [self._host]
        if self._open is None:
            self._open = asyncio.create_task(_ask(self._host), name=f"look up {self._host}")
        question = self._open
        await asyncio.wait([question])
        self._open = None
        answer = question.result()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """Give up the open question, if any."""
        if self._open is not None:
            self._open.cancel()
            self._open = None


async def _ask(host: str) -> Sequence[str] | OSError | UnicodeError:
    """Return the addresses or what was wrong, which is no failure of the task: maybe nobody waits for it any more."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return error
    return [str(info[4][0]) for info in found] or OSError("no address found")


def is_address(host: str) -> bool:
    """Return whether a host is written as an IP address, so that there is nothing to look up."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
