"""Programs that are kept running: small real ones that exit, fall silent, or will not go."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from processes import children, until
from tidegate.gateway import process as kept
from tidegate.gateway.process import KeptRunning, Program, running
from tidegate.protocol.errors import TidegateError

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
SLEEPS = "import time; print('up', flush=True); time.sleep(60)"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "STOP_GRACE_S", 0.3)
    monkeypatch.setattr(kept, "POLL_S", 0.02)
    monkeypatch.setattr(kept, "FIRST_BACKOFF_S", 0.01)


def program(tmp_path: Path, code: str) -> Program:
    return Program("child", [sys.executable, "-c", code], tmp_path / "child.log")


def starts(of: Program) -> list[str]:
    """Return what it has said so far, by line."""
    return of.log.read_text().splitlines() if of.log.exists() else []


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


class Health:
    """A health check whose answers the test decides."""

    def __init__(self, *, good: bool = True) -> None:
        self.good = good
        self.hangs = False
        self.asked = 0

    async def __call__(self) -> bool:
        self.asked += 1
        while self.hangs:
            await asyncio.sleep(0.01)
        return self.good


class Kept:
    """A program that is kept running, and what people were told of it."""

    def __init__(self, of: Program, health: Health) -> None:
        self.program = of
        self.health = health
        self.said: list[str] = []
        self.keeper = KeptRunning(of, healthy=health, max_silence_s=0.2, say=self.said.append)

    async def has_said(self, count: int) -> None:
        async def probe() -> bool:
            return len(self.said) >= count

        await until(probe, within_s=10)

    async def has_logged(self, count: int) -> list[str]:
        async def probe() -> list[str]:
            return starts(self.program) if len(starts(self.program)) >= count else []

        return await until(probe, within_s=10)


@contextlib.asynccontextmanager
async def kept_running(of: Program, health: Health | None = None) -> AsyncIterator[Kept]:
    """Keep it running until the end of the block."""
    child = Kept(of, health or Health())
    task = asyncio.create_task(child.keeper.run())
    try:
        yield child
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=10)
        assert task.cancelled()


PIDS = "import os; print(os.getpid(), flush=True)"


class TestRestarting:
    async def test_a_program_that_exits_is_started_again_and_its_status_and_last_words_are_told(
        self, tmp_path: Path
    ) -> None:
        async with kept_running(program(tmp_path, "import sys; print('no room\\n'); sys.exit(3)")) as child:
            await child.has_said(2)

        assert child.said[0] == "child exited with status 3; starting it again. Its last words: no room"

    async def test_a_program_that_is_killed_is_started_again_and_the_signal_is_told(self, tmp_path: Path) -> None:
        async with kept_running(program(tmp_path, PIDS + "; import time; time.sleep(60)")) as child:
            [pid] = await child.has_logged(1)
            os.kill(int(pid), signal.SIGKILL)
            pids = await child.has_logged(2)

        assert child.said == [f"child exited with SIGKILL; starting it again. Its last words: {pid}"]
        assert all(is_gone(int(pid)) for pid in pids)

    async def test_pauses_grow_up_to_a_limit_while_it_keeps_exiting(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "MAX_BACKOFF_S", 0.05)
        pauses: list[float] = []
        sleep = asyncio.sleep

        async def note(delay: float) -> None:
            pauses.append(delay)
            await sleep(delay)

        monkeypatch.setattr(asyncio, "sleep", note)
        async with kept_running(program(tmp_path, "")) as child:
            while len(child.said) < 5:
                await sleep(0.01)

        assert pauses[:4] == [0.01, 0.02, 0.04, 0.05]

    async def test_a_program_that_ran_long_enough_starts_again_after_the_first_pause(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "STEADY_S", 0.0)
        monkeypatch.setattr(kept, "MAX_BACKOFF_S", 3600.0)
        async with kept_running(program(tmp_path, "")) as child:
            await child.has_said(12)  # doubled each time, the last pause alone would be 20 s


class TestStarting:
    async def test_a_program_that_cannot_be_started_is_an_error_that_names_it(self, tmp_path: Path) -> None:
        nothing = Program("child", [str(tmp_path / "nothing")], tmp_path / "child.log")

        with pytest.raises(TidegateError, match=f"child cannot be started: {tmp_path}/nothing: No such file"):
            await Kept(nothing, Health()).keeper.run()

    async def test_one_that_has_run_before_is_tried_again(self, tmp_path: Path) -> None:
        executable = tmp_path / "sleeps"
        executable.write_text(f"#!{sys.executable}\n{SLEEPS}")
        executable.chmod(0o755)
        replaced = Program("child", [str(executable)], tmp_path / "child.log")
        async with kept_running(replaced) as child:
            await child.has_logged(1)
            executable.rename(tmp_path / "away")
            child.health.good = False
            await child.has_said(2)
            (tmp_path / "away").rename(executable)
            child.health.good = True
            await child.has_logged(2)

        assert child.said[1] == (
            f"child cannot be started: {executable}: No such file or directory; starting it again. Its last words: up"
        )

    async def test_before_each_start_it_gets_the_directory_it_needs(self, tmp_path: Path) -> None:
        needed = tmp_path / "needed"
        code = f"import shutil; shutil.rmtree({str(needed)!r})"
        cleaned = Program("child", [sys.executable, "-c", code], needed / "log", prepare=needed.mkdir)
        async with kept_running(cleaned) as child:
            await child.has_said(2)

        assert child.said == ["child exited with status 0; starting it again. Its last words: (none)"] * 2


class TestSilence:
    async def test_a_program_that_falls_silent_is_killed_and_started_again(self, tmp_path: Path) -> None:
        async with kept_running(program(tmp_path, STUBBORN)) as child:
            await child.has_logged(1)
            await until_asked(child.health, 3)
            child.health.good = False
            await child.has_said(1)
            child.health.good = True
            await child.has_logged(2)

        assert child.said == ["child does not answer; starting it again. Its last words: deaf"]

    async def test_a_health_check_that_hangs_is_silence_too(self, tmp_path: Path) -> None:
        async with kept_running(program(tmp_path, SLEEPS)) as child:
            await until_asked(child.health, 3)
            child.health.hangs = True
            await child.has_said(1)

        assert "does not answer" in child.said[0]

    async def test_one_good_answer_within_the_limit_is_enough(self, tmp_path: Path) -> None:
        async with kept_running(program(tmp_path, SLEEPS)) as child:
            for _ in range(5):
                child.health.good = False
                await until_asked(child.health, child.health.asked + 2)
                child.health.good = True
                await until_asked(child.health, child.health.asked + 2)

        assert child.said == []

    async def test_a_new_program_has_longer_until_its_first_answer(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "START_GRACE_S", 1.0)
        health = Health(good=False)
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with kept_running(program(tmp_path, SLEEPS), health) as child:
            await child.has_said(1)

        assert loop.time() - started > 1.0  # 0.2 s of silence would have ended it once it had answered


async def until_asked(health: Health, times: int) -> None:
    async def probe() -> bool:
        return health.asked >= times

    await until(probe, within_s=10)


class TestStopping:
    async def test_a_program_is_asked_to_end_before_it_is_killed(self, tmp_path: Path) -> None:
        code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye')));" + SLEEPS
        child = program(tmp_path, code)
        async with running(child) as process:
            await _said(child, "up")

        assert process.returncode == 0
        assert starts(child) == ["up", "bye"]

    async def test_a_program_that_ignores_sigterm_is_killed(self, tmp_path: Path) -> None:
        child = program(tmp_path, STUBBORN)
        async with running(child) as process:
            await _said(child, "deaf")

        assert process.returncode == -signal.SIGKILL
        assert is_gone(process.pid)

    async def test_hurried_while_stopping_it_is_killed_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "STOP_GRACE_S", 3600.0)
        child = program(tmp_path, STUBBORN)
        pids: list[int] = []

        async def run() -> None:
            async with running(child) as process:
                pids.append(process.pid)
                await asyncio.sleep(3600)

        task = asyncio.create_task(run())
        await _said(child, "deaf")
        task.cancel()
        await asyncio.sleep(0.05)
        assert not is_gone(pids[0])
        task.cancel()
        await asyncio.wait([task], timeout=10)

        assert task.cancelled()
        assert is_gone(pids[0])

    async def test_a_program_that_has_already_gone_is_no_trouble(self, tmp_path: Path) -> None:
        async with running(program(tmp_path, "")) as process:
            await process.wait()

        assert process.returncode == 0

    def test_it_goes_with_its_parent_even_when_that_is_killed(self, tmp_path: Path) -> None:
        parent = f"""
import asyncio, os, signal, sys
from pathlib import Path
from tidegate.gateway.process import Program, running

async def main():
    child = Program("child", [sys.executable, "-c", {SLEEPS!r}], Path({str(tmp_path / "child.log")!r}))
    async with running(child) as process:
        print(process.pid, flush=True)
        while not child.log.read_text():
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""

        async def run() -> int:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", parent, stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
            assert process.returncode == -signal.SIGKILL
            return int(out)

        async def gone() -> bool:
            # Nobody here reaps it: a zombie is as good as gone.
            stat = Path(f"/proc/{pid}/stat")
            return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

        pid = asyncio.run(run())
        asyncio.run(until(gone, within_s=10))


async def _said(child: Program, word: str) -> None:
    async def probe() -> bool:
        return word in starts(child)

    await until(probe, within_s=10)


class TestCancelling:
    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test_cancelled_at_any_moment_it_leaves_no_process(self, tmp_path: Path, run: object) -> None:
        before = children(os.getpid()).keys()
        rng = random.Random(7)

        async def once(wait_s: float, *, again_s: float | None) -> None:
            keeper = KeptRunning(program(tmp_path, SLEEPS), healthy=Health(), max_silence_s=1, say=print)
            task = asyncio.create_task(keeper.run())
            await asyncio.sleep(wait_s)
            task.cancel()
            if again_s is not None:
                await asyncio.sleep(again_s)
                task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.cancelled()

        async def many() -> None:
            for _ in range(40):
                await once(
                    rng.choice([0, rng.uniform(0, 0.01), rng.uniform(0, 0.05)]),
                    again_s=rng.choice([None, 0, rng.uniform(0, 0.005)]),
                )

            async def all_gone() -> bool:
                return children(os.getpid()).keys() == before  # no zombie either

            await until(all_gone, within_s=5)

        run(many())  # type: ignore[operator]


class TestLastWords:
    @pytest.mark.parametrize(
        ("log", "words"),
        [
            (b"", "(none)"),
            (b"\n \n", "(none)"),
            (b"one\ntwo\n\n", "two"),
            (b"no line end", "no line end"),
            (b"x" * 5000 + b"\nend", "end"),
            (b"\xff\xfe", "\ufffd\ufffd"),
        ],
    )
    def test_the_last_line_that_says_something(self, tmp_path: Path, log: bytes, words: str) -> None:
        child = Program("child", [], tmp_path / "log")
        child.log.write_bytes(log)

        assert child.last_words() == words

    def test_a_log_that_is_gone_has_none(self, tmp_path: Path) -> None:
        assert Program("child", [], tmp_path / "log").last_words() == "(none)"

    def test_a_line_without_end_is_cut(self, tmp_path: Path) -> None:
        child = Program("child", [], tmp_path / "log")
        child.log.write_bytes(b"x" * 2**20)

        assert child.last_words() == "x" * kept.LAST_WORDS_BYTES
