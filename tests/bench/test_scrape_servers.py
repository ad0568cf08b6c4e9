"""The servers whose expositions are rendered beforehand: real processes, real sockets."""

import asyncio
import resource
from pathlib import Path

import pytest

from tidegate.bench.scrape_expositions import load_expositions
from tidegate.bench.scrape_servers import MAX_REQUEST_BYTES, path_of, prerendered_servers
from tidegate.protocol.errors import ConfigError
from tidegate.scrape.http import HttpConnection


async def test_every_port_has_every_exposition_and_gets_are_counted(tmp_path: Path) -> None:
    expositions = list(load_expositions())
    async with prerendered_servers(3, tmp_path) as servers:
        assert len(set(servers.ports)) == 3
        for port in servers.ports:
            connection = HttpConnection("127.0.0.1", port, timeout_s=5)
            for exposition in expositions:
                answer = await connection.get(path_of(exposition))
                assert (answer.status, answer.body) == (200, exposition.body)
            assert (await connection.get("/metrics")).status == 404
            connection.close()

        assert await servers.answered() == 3 * len(expositions)


async def test_requests_may_come_in_pieces_but_not_without_end(tmp_path: Path) -> None:
    async with prerendered_servers(1, tmp_path) as servers:
        reader, writer = await asyncio.open_connection("127.0.0.1", servers.ports[0])
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: a\r\n")
        await writer.drain()
        writer.write(b"\r\n")
        assert await reader.readline() == b"HTTP/1.1 404 Not Found\r\n"
        while await reader.readline() != b"\r\n":
            pass

        writer.write(b"x" * (MAX_REQUEST_BYTES + 1))
        async with asyncio.timeout(5):
            with pytest.raises(ConnectionError):
                await _read_on(reader)
        writer.close()


async def test_too_few_files_for_the_sockets_are_told_beforehand(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
    try:
        with pytest.raises(ConfigError) as refused:
            async with prerendered_servers(201, tmp_path):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert str(refused.value) == (
        "--endpoints: a process may open 600 files here, too few for 201. "
        "Use 200 at most, or raise the limit (ulimit -n)."
    )


async def _read_on(reader: asyncio.StreamReader) -> None:
    """Read until the connection ends; an end without an error counts as one."""
    while await reader.read(1000):
        pass
    raise ConnectionError
