"""Discovery: what reaches the pool when files change, and names have addresses, or none, or the same."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from processes import until
from tidegate.pool import discovery, resolver
from tidegate.pool.discovery import Discovery, EndpointsFile, EndpointSource, StaticEndpoints
from tidegate.pool.endpoint import Endpoint
from tidegate.pool.endpoints_file import parse_argument
from tidegate.protocol.errors import ConfigError


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "POLL_S", 0.02)
    monkeypatch.setattr(discovery, "LOOK_UP_PATIENCE_S", 0.02)
    monkeypatch.setattr(resolver, "LOOK_UP_AGAIN_S", 0.05)


class Followed:
    """What a running Discovery has applied."""

    def __init__(self, source: EndpointSource, known_addresses: dict[str, str]) -> None:
        self.applied: list[Sequence[Endpoint]] = []
        self.discovery = Discovery(source, self.applied.append, known_addresses=known_addresses)

    @property
    def members(self) -> dict[str, str]:
        """The addresses of the present members, by name."""
        return {endpoint.name: endpoint.address for endpoint in self.applied[-1]} if self.applied else {}

    async def has(self, **members: str) -> None:
        """Wait until these are the members."""
        await until_true(lambda: self.members == members)

    async def complains(self, text: str) -> None:
        """Wait until a problem says this."""
        await until_true(lambda: any(text in problem for problem in self.discovery.problems))

    async def is_content(self) -> None:
        """Wait until nothing is wrong."""
        await until_true(lambda: bool(self.applied) and not self.discovery.problems)


async def until_true(condition: Any) -> None:
    async def probe() -> bool:
        return bool(condition())

    await until(probe, within_s=10)


@contextlib.asynccontextmanager
async def following(source: EndpointSource, **known_addresses: str) -> AsyncIterator[Followed]:
    followed = Followed(source, known_addresses)
    before = asyncio.all_tasks()
    task = asyncio.create_task(followed.discovery.run())
    try:
        yield followed
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert asyncio.all_tasks() == before


def static(*urls: str) -> StaticEndpoints:
    return StaticEndpoints([parse_argument(url) for url in urls])


def named(**addresses: str) -> StaticEndpoints:
    return StaticEndpoints([Endpoint(name=name, host=host, port=80) for name, host in addresses.items()])


class Names:
    """A resolver whose names the test decides."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, str | list[str]] = {}
        self.silent: set[str] = set()
        self.asked: list[str] = []
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self._getaddrinfo)

    async def _getaddrinfo(self, host: str, port: None, **_: object) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        while host in self.silent:
            await asyncio.sleep(0.01)
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = self.addresses[host]
        addresses = [found] if isinstance(found, str) else found
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


@pytest.fixture
async def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


class TestResolving:
    async def test_addresses_are_written_as_the_gateway_knows_them(self) -> None:
        async with following(static("http://10.0.0.1:80", "http://[fd00::1]:81")) as followed:
            await followed.has(**{"10.0.0.1:80": "10.0.0.1:80", "[fd00::1]:81": "[fd00::1]:81"})
            await followed.is_content()

    async def test_localhost_is_the_ipv4_one(self) -> None:
        async with following(static("http://localhost:8000")) as followed:
            await followed.has(**{"localhost:8000": "127.0.0.1:8000"})

    async def test_two_names_of_one_server_are_one_member_and_the_other_is_told_of(self) -> None:
        async with following(static("http://localhost:8000", "http://127.0.0.1:8000")) as followed:
            await followed.has(**{"localhost:8000": "127.0.0.1:8000"})
            await followed.complains("127.0.0.1:8000: the same server as localhost:8000. Left out.")

    async def test_a_name_without_address_is_left_out_until_it_has_one(self, names: Names) -> None:
        names.addresses["here"] = "10.0.0.1"
        async with following(named(a="here", b="later")) as followed:
            await followed.has(a="10.0.0.1:80")
            await followed.complains("later: no address found ([Errno -2] Name or service not known)")

            names.addresses["later"] = "10.0.0.2"

            await followed.has(a="10.0.0.1:80", b="10.0.0.2:80")
            await followed.is_content()

    async def test_a_name_that_cannot_exist_harms_nobody_else(self) -> None:
        async with following(named(a="127.0.0.1", b="a..b", c="x" * 64, d="ä..b")) as followed:
            await followed.has(a="127.0.0.1:80")
            for host in ("a..b", "x" * 64, "ä..b"):
                await followed.complains(f"{host}: no address found")

    async def test_a_silent_name_server_delays_nobody_else_and_is_asked_once_at_a_time(self, names: Names) -> None:
        names.silent.add("slow")
        names.addresses |= {"here": "10.0.0.1", "slow": "10.0.0.3"}
        source = named(a="here", b="slow")
        async with following(source) as followed:
            await followed.has(a="10.0.0.1:80")
            await followed.complains("slow: no address found yet")

            names.addresses["new"] = "10.0.0.2"
            source._endpoints = named(a="here", b="slow", c="new").read()
            await followed.has(a="10.0.0.1:80", c="10.0.0.2:80")
            assert names.asked.count("slow") == 1

            names.silent.clear()
            await followed.has(a="10.0.0.1:80", b="10.0.0.3:80", c="10.0.0.2:80")
            await followed.is_content()

    async def test_what_does_not_change_is_not_applied_again(self, names: Names) -> None:
        names.addresses["here"] = "10.0.0.1"
        async with following(named(a="here", b="nowhere")) as followed:
            await until_true(lambda: min(names.asked.count("nowhere"), names.asked.count("here")) >= 3)

            assert len(followed.applied) == 1

    async def test_a_name_that_moves_is_followed_and_one_that_is_lost_keeps_its_address(self, names: Names) -> None:
        names.addresses |= {"moving": "10.0.0.1", "steady": "10.0.0.9"}
        async with following(named(a="moving", b="steady")) as followed:
            await followed.has(a="10.0.0.1:80", b="10.0.0.9:80")

            names.addresses["moving"] = "10.0.0.2"
            await followed.has(a="10.0.0.2:80", b="10.0.0.9:80")

            names.addresses.clear()
            names.asked.clear()
            await until_true(lambda: len(names.asked) >= 6)
            assert followed.members == {"a": "10.0.0.2:80", "b": "10.0.0.9:80"}
            assert not followed.discovery.problems

    async def test_a_name_with_several_addresses_keeps_the_first_it_got_while_it_holds(self, names: Names) -> None:
        names.addresses["many"] = ["10.0.0.1", "10.0.0.2"]
        async with following(named(a="many")) as followed:
            await followed.has(a="10.0.0.1:80")
            names.addresses["many"] = ["10.0.0.2", "10.0.0.1"]
            names.asked.clear()
            await until_true(lambda: len(names.asked) >= 3)
            assert len(followed.applied) == 1

            names.addresses["many"] = ["10.0.0.3", "10.0.0.2"]
            await followed.has(a="10.0.0.3:80")

    async def test_what_a_predecessor_found_serves_until_the_name_server_answers(self, names: Names) -> None:
        names.silent |= {"slow", "new"}
        names.addresses |= {"slow": "10.0.0.2", "new": "10.0.0.3"}
        async with following(named(a="slow", b="new"), slow="10.0.0.1", gone="10.0.0.8") as followed:
            await followed.complains("new: no address found yet")
            assert [len(members) for members in followed.applied] == [1]
            assert followed.members == {"a": "10.0.0.1:80"}

            names.silent.clear()
            await followed.has(a="10.0.0.2:80", b="10.0.0.3:80")

    async def test_an_address_is_not_looked_up(self, names: Names) -> None:
        async with following(named(a="10.0.0.1", b="fd00::1")) as followed:
            await followed.has(a="10.0.0.1:80", b="[fd00::1]:80")

        assert names.asked == []


def write(path: Path, *names: str) -> None:
    """List these endpoints in the file."""
    lines = "".join(f"  - {{name: {name}, address: 127.0.0.1, port: {ord(name)}}}\n" for name in names)
    replace(path, f"endpoints:{lines and chr(10)}{lines or ' []'}")


def replace(path: Path, content: str) -> None:
    """Replace the file as a careful operator does: by renaming another into its place."""
    new = path.with_suffix(".new")
    new.write_text(content)
    new.rename(path)


A, B = {"a": "127.0.0.1:97"}, {"b": "127.0.0.1:98"}


class TestFile:
    async def test_the_members_follow_a_file_that_is_renamed_into_place(self, tmp_path: Path) -> None:
        path = tmp_path / "pool.yaml"
        write(path, "a")
        async with following(EndpointsFile(path)) as followed:
            await followed.has(**A)
            write(path, "a", "b")
            await followed.has(**A, **B)
            write(path, "b")
            await followed.has(**B)
            write(path)
            await until_true(lambda: followed.applied[-1] == [])

    async def test_the_members_follow_a_link_that_is_turned_to_another_file(self, tmp_path: Path) -> None:
        link = tmp_path / "pool.yaml"
        write(tmp_path / "one", "a")
        write(tmp_path / "two", "b")
        link.symlink_to("one")
        async with following(EndpointsFile(link)) as followed:
            await followed.has(**A)
            (tmp_path / "link").symlink_to("two")
            (tmp_path / "link").rename(link)
            await followed.has(**B)

    async def test_a_bad_file_keeps_the_members_and_is_told_of_until_it_is_mended(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "pool.yaml"
        write(path, "a")
        async with following(EndpointsFile(path)) as followed:
            await followed.has(**A)
            for _ in range(2):  # the same mistake again is news again
                replace(path, "endpoints: [{name: a}]")
                await followed.complains(f"{path}: endpoints[0]: Object missing required field `address`")
                assert followed.members == A
                write(path, "a")
                await followed.is_content()

        warnings = [record.message for record in caplog.records]
        assert len(warnings) == 2
        assert all("The endpoints stay as they were." in warning for warning in warnings)

    async def test_a_file_that_goes_away_keeps_the_members(self, tmp_path: Path) -> None:
        path = tmp_path / "pool.yaml"
        write(path, "a")
        async with following(EndpointsFile(path)) as followed:
            await followed.has(**A)
            path.unlink()
            await followed.complains(f"{path}: cannot be read: No such file or directory")
            assert followed.members == A
            write(path, "b")
            await followed.has(**B)

    def test_what_cannot_be_read_is_an_error_every_time(self, tmp_path: Path) -> None:
        source = EndpointsFile(tmp_path)
        for _ in range(2):
            with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
                source.read()

    def test_a_bad_content_is_an_error_every_time(self, tmp_path: Path) -> None:
        path = tmp_path / "pool.yaml"
        path.write_text("endpoints: 1")
        source = EndpointsFile(path)
        for _ in range(2):
            with pytest.raises(ConfigError, match="must be a list"):
                source.read()

    def test_no_more_of_a_file_is_read_than_the_limit(self, tmp_path: Path) -> None:
        path = tmp_path / "pool.yaml"
        with path.open("wb") as file:
            file.truncate(2**40)  # a hole: reading it whole would end the process

        with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
            EndpointsFile(path).read()
