"""Where `tidegate up` learns of servers and of their metrics: the command line, a file that changes, probing."""

from pathlib import Path

import aiohttp

from processes import Gateway, gateway, sim, until
from servers import ModelServer, model_server, model_servers


def entry(server: ModelServer, **fields: str | int) -> str:
    """Return the server's line of an endpoints file."""
    listed = {"name": server.name, "address": "127.0.0.1", "port": server.port} | fields
    return "  - {" + ", ".join(f"{key}: {value}" for key, value in listed.items()) + "}\n"


def write(file: Path, *entries: str, head: str = "endpoints:\n") -> None:
    """Replace the file by a rename, as careful writers do."""
    new = file.with_suffix(".new")
    new.write_text(head + "".join(entries))
    new.rename(file)


async def names(up: Gateway) -> set[str]:
    """Return the endpoints of the pool."""
    return set(await up.states())


async def become(up: Gateway, *expected: str) -> None:
    """Wait until the pool has exactly these endpoints, ready."""

    async def are_there() -> bool:
        return await names(up) == set(expected)

    await until(are_there)
    await up.ready(*expected)


async def served_by(up: Gateway, count: int = 20) -> set[str]:
    """Send requests; returns who answered."""
    found = set()
    async with aiohttp.ClientSession() as session:
        for _ in range(count):
            async with session.post(up.url) as answer:
                assert answer.status == 200
                found.add((await answer.json())["served_by"])
    return found


async def test_a_server_joins_and_leaves_with_the_file_and_its_stream_finishes(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    async with model_servers(2) as (old, new):
        write(file, entry(old))
        async with gateway("--endpoints", str(file)) as up, aiohttp.ClientSession() as session:
            await become(up, "a")
            old.release.clear()
            async with session.get(f"{up.url}/stream") as stream:
                assert await stream.content.readline() == b"a\n"

                write(file, entry(old), entry(new))
                await become(up, "a", "b")
                old.queued = 50
                await up.shows("a", queued_requests=50)
                assert await served_by(up) == {"b"}

                new.queued = 90
                write(file, entry(new))
                await become(up, "b")
                assert await served_by(up) == {"b"}

                old.release.set()
                assert await stream.content.read() == b"end\n"
            await up.drained()


async def test_a_bad_file_keeps_the_endpoints_and_is_told_once(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    async with model_servers(2) as (first, second):
        write(file, entry(first))
        async with gateway("--endpoints", str(file)) as up:
            await become(up, "a")

            write(file, entry(second, colour="red"))
            await up.said(r"endpoints\[0\]: .*`colour`.* The endpoints stay as they were")
            assert await served_by(up) == {"a"}
            file.unlink()
            await up.said("pool.yaml: cannot be read")
            assert await served_by(up) == {"a"}

            write(file, entry(first), entry(second))
            await become(up, "a", "b")
        assert len([line for line in up.lines if "stay as they were" in line]) == 2


async def test_metrics_are_read_where_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    async with (
        model_server("a") as on_another_port,
        model_server("b", metrics_path="/stats") as on_another_path,
        model_server("reporter", metrics_path="/a/stats") as reporter,
    ):
        on_another_port.queued, reporter.queued, on_another_path.queued = 99, 7, 8
        write(
            file,
            entry(on_another_port, metricsPort=reporter.port, metricsPath="/a/stats"),
            entry(on_another_path, metricsPath="/stats"),
        )
        async with gateway("--endpoints", str(file)) as up:
            await up.shows("a", queued_requests=7, state="ready")
            await up.shows("b", queued_requests=8, state="ready")


async def test_metrics_are_read_where_the_argument_says_or_else_looked_for() -> None:
    async with (
        model_server("told") as told,
        model_server("reporter", metrics_path="/stats") as reporter,
        model_server("usual") as usual,
        model_server("other", metrics_path="/prometheus/metrics") as other,
        sim("--engine", "trtllm-serve") as (_, trtllm_serve),
    ):
        told.queued, reporter.queued, usual.queued, other.queued = 99, 5, 6, 7
        told_to = f"{told.url},metrics={reporter.url}/stats"
        async with gateway(told_to, usual.url, other.url, trtllm_serve) as up:
            await up.shows(told.address, queued_requests=5, state="ready")
            await up.shows(usual.address, queued_requests=6, state="ready")
            await up.shows(other.address, queued_requests=7, state="ready")
            await up.shows(trtllm_serve.removeprefix("http://"), queued_requests=0, state="ready")
