"""What a command raises: one line for what the user can mend, a traceback for a bug of ours."""

import asyncio
import sys
from types import ModuleType

import pytest
import typer

from tidegate.cli import main as cli
from tidegate.protocol.errors import TidegateError


def run(monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> None:
    """Run a command whose tasks, one in a group within the other, end with these errors."""

    async def fail(error: Exception) -> None:
        raise error

    async def within() -> None:
        async with asyncio.TaskGroup() as tasks:
            for error in errors:
                tasks.create_task(fail(error))

    async def whole() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(within())

    module: ModuleType = ModuleType("tidegate.cli.up")
    module.app = typer.Typer()  # type: ignore[attr-defined]
    module.app.command()(lambda: asyncio.run(whole()))
    monkeypatch.setitem(sys.modules, "tidegate.cli.up", module)
    cli.main(["up"])


def test_an_error_in_a_task_is_one_line_and_exit_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, TidegateError("no Envoy"), TidegateError("no picker either"))

    assert ended.value.code == 2
    assert capsys.readouterr().err == "tidegate: no Envoy\n"


def test_a_bug_is_not_hidden_by_an_error_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExceptionGroup):
        run(monkeypatch, TidegateError("no Envoy"), ZeroDivisionError())
