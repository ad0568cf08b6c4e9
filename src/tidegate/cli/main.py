"""The `tidegate` command: finds the subcommand, turns a user's mistake into one line."""

import contextlib
import importlib
import os
import resource
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from tidegate import __version__
from tidegate.protocol.errors import TidegateError

COMMANDS = ("up", "picker", "exporter", "frontend", "check", "sim", "bench")
"""In the order of --help. Each is a module of this package that holds a `typer.Typer` called `app`."""

USAGE_ERROR = 2


class LazyCommands(TyperGroup):
    """Imports a command when it is called: a simulated server must not pay for grpc, nor the picker for starlette."""

    # typer vendors click and gives its Context and Command no public name, hence Any.
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"tidegate.cli.{cmd_name}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="tidegate",
    cls=LazyCommands,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidegate {__version__}")
        raise typer.Exit


@app.callback()
def tidegate(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """The inference gateway you can pip install: each request goes to the model server that answers it soonest."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exits 2 with one line on standard error when the user can mend what is wrong."""
    # grpc logs what it then also raises, such as a port in use. Read when a command imports it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    _raise_file_limit()
    try:
        sys.exit(app(args=arguments, prog_name="tidegate", standalone_mode=False))
    except typer.TyperException as error:
        _complain_of_usage(error)
    except TidegateError as error:
        _complain(error)
    except BaseExceptionGroup as group:  # of tasks, each of which may have failed
        mendable, others = group.split(TidegateError)
        if mendable is None or others is not None:
            raise
        _complain(_first(mendable))


def _raise_file_limit() -> None:
    """Open as many files as may be, here and in Envoy: the usual soft limit is 1,024, and an endpoint takes several."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # refused in some sandboxes: what there is may well do
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _complain(error: BaseException | str) -> NoReturn:
    print(f"tidegate: {error}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def _complain_of_usage(error: typer.TyperException) -> NoReturn:
    """Tell in our own form what typer found wrong; it shows the help when there is no argument at all."""
    message = error.format_message()
    if message.startswith("Usage: "):
        print(message, file=sys.stderr)
        sys.exit(USAGE_ERROR)
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "tidegate"
    problem = " ".join(message.replace("Value error, ", "").split()).rstrip(".")
    _complain(f"{problem[0].lower()}{problem[1:]}. See `{command} --help`.")


def _first(error: BaseException) -> BaseException:
    """Return the first error of a group of groups."""
    return _first(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else error


if __name__ == "__main__":
    main()
