"""Where Envoy's log of outcomes waits while the picker is away.

Envoy drops the outcomes it finds nobody to send to, but keeps those that a listener is slow to read. So what listens
outlives the picker: it passes on the bytes of each connection, and reads none of them until there is a picker.
"""

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from pathlib import Path

POLL_S = 0.05
"""How often to look for a picker that is away, and for our socket, which a cleaner of /tmp may take."""
CHUNK_BYTES = 2**16


class LogRelay:
    """Listens on one unix socket for Envoy's workers, and connects each of them to the picker's."""

    def __init__(self, *, listen_on: Path, picker: Path) -> None:
        self._listen_on = listen_on
        self._picker = picker

    async def run(self) -> None:
        """Relay until cancelled; what is under way is cut off then."""
        async with asyncio.TaskGroup() as connections:

            def accept(reader: StreamReader, writer: StreamWriter) -> None:
                connections.create_task(self._relay(reader, writer), name="relay of Envoy's log")

            while True:
                with contextlib.suppress(OSError):  # without its directory; the picker makes it anew
                    async with await asyncio.start_unix_server(accept, self._listen_on):
                        while self._listen_on.exists():  # noqa: ASYNC110 - a file has no event
                            await asyncio.sleep(POLL_S)
                await asyncio.sleep(POLL_S)

    async def _relay(self, envoy_reader: StreamReader, envoy_writer: StreamWriter) -> None:
        """Connect one worker to the picker until either leaves; then the other is told by an end as well."""
        with contextlib.closing(envoy_writer):
            picker_reader, picker_writer = await self._picker_connection()
            with contextlib.closing(picker_writer):
                async with asyncio.TaskGroup() as ways:
                    forth = ways.create_task(_pass_on(envoy_reader, picker_writer))
                    back = ways.create_task(_pass_on(picker_reader, envoy_writer))
                    forth.add_done_callback(lambda _: back.cancel())
                    back.add_done_callback(lambda _: forth.cancel())

    async def _picker_connection(self) -> tuple[StreamReader, StreamWriter]:
        """Wait until the picker listens; returns the connection."""
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_unix_connection(self._picker)
            await asyncio.sleep(POLL_S)


async def _pass_on(source: StreamReader, sink: StreamWriter) -> None:
    """Pass on what comes, no faster than it is taken, until either end is gone."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(CHUNK_BYTES):
            sink.write(chunk)
            await sink.drain()
