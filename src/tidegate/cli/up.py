"""`tidegate up`: the main job, a gateway in front of model servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from rich.console import Console

from tidegate.bench.fleet import simulated_fleet
from tidegate.cli.dashboard import Dashboard
from tidegate.cli.endpoints import endpoint_source
from tidegate.cli.options import parse_port, whole
from tidegate.cli.stopping import cancel_on_signals
from tidegate.gateway.envoy.binary import find_envoy
from tidegate.gateway.local import LocalGateway, reserved_port, working_directory
from tidegate.gateway.process import own_command
from tidegate.protocol.errors import ConfigError

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(no_args_is_help=True)
def up(
    urls: Annotated[list[str] | None, typer.Argument(metavar="URL", hidden=True)] = None,
    endpoints: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A YAML file of model servers instead; followed as it changes.")
    ] = None,
    demo: Annotated[
        int,
        typer.Option(
            parser=whole(0, 64),
            metavar="N",
            help="Start N simulated TensorRT-LLM servers and use them.",
            show_default=False,
        ),
    ] = 0,
    host: Annotated[str, typer.Option(metavar="IP", help="Where to listen; 0.0.0.0: everywhere.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(parser=parse_port, metavar="PORT", help="Port for clients; 0 takes a free one.")
    ] = 8080,
    admin_port: Annotated[
        int,
        typer.Option(parser=parse_port, metavar="PORT", help="Port of /metrics and /debug/pool; 0 takes a free one."),
    ] = 9090,
    usage_from_envoy: Annotated[
        bool,
        typer.Option(
            "--usage-from-envoy", help="Let Envoy read token usage from the answers, by a filter it calls unfinished."
        ),
    ] = False,
    envoy: Annotated[Path | None, typer.Option(metavar="PATH", help="Run this Envoy instead of the wheel's.")] = None,
) -> None:
    """Run an inference gateway: Envoy, and a picker that it asks.

    Each request goes to the model server that should answer it soonest. A URL is a server's, http://HOST:PORT. Where
    it keeps its metrics is found out: /metrics, /prometheus/metrics, then port 8002. When they are elsewhere, add the
    place to the URL: ",metrics=URL". A server that is not there yet is waited for. Ctrl-C stops everything.

    \b
    Examples:
      tidegate up http://gpu-1:8000 http://gpu-2:8000
      tidegate up http://triton:8000,metrics=http://triton:8002/metrics
      tidegate up --endpoints pool.yaml
      tidegate up --demo 4

    \b
    The file of --endpoints; the last three keys may be left out:
      endpoints:
        - name: triton-a
          address: 10.0.0.5
          port: 8000
          metricsPort: 8002
          metricsPath: /metrics
          labels: {llm-d.ai/engine-type: triton-tensorrt-llm}
        - name: vllm-b
          address: gpu-2
          port: 8000
    """
    if demo and (urls or endpoints):
        raise ConfigError("--demo brings its own model servers", fix="Leave out the URLs and --endpoints.")
    if not demo:
        endpoint_source(urls or [], endpoints).read()
    if port and port == admin_port:
        raise ConfigError(f"port {port} is given twice", fix="Give another --port or another --admin-port.")
    binary = find_envoy(envoy)
    picker_options = [*(urls or []), *(["--endpoints", str(endpoints)] if endpoints else [])]
    with (
        reserved_port(host, port, fix="Give another --port or --host.") as port,
        reserved_port("127.0.0.1", admin_port, fix="Give another --admin-port.") as admin_port,
        working_directory() as directory,
        contextlib.suppress(asyncio.CancelledError),
    ):
        uvloop.run(
            _run(
                directory,
                binary,
                host=host,
                port=port,
                admin_port=admin_port,
                demo=demo,
                picker_options=picker_options,
                usage=usage_from_envoy,
            )
        )


async def _run(
    directory: Path,
    envoy: Path,
    *,
    host: str,
    port: int,
    admin_port: int,
    demo: int,
    picker_options: Sequence[str],
    usage: bool,
) -> None:
    cancel_on_signals()
    dashboard = Dashboard(Console())
    async with _model_servers(demo, directory, dashboard) as simulated:
        picker_argv = own_command("picker", *picker_options, *simulated)
        gateway = LocalGateway(
            directory,
            envoy=envoy,
            host=host,
            port=port,
            picker_argv=[*picker_argv, "--admin-address", f"127.0.0.1:{admin_port}"],
            steered=True,
            usage=usage,
            say=dashboard.say,
        )
        dashboard.say("starting Envoy and the picker")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(gateway.run(), name="gateway")
            dashboard.listening(await gateway.url(), f"http://127.0.0.1:{admin_port}")
            tasks.create_task(dashboard.run(gateway.pool), name="dashboard")


@contextlib.asynccontextmanager
async def _model_servers(demo: int, directory: Path, dashboard: Dashboard) -> AsyncIterator[list[str]]:
    if not demo:
        yield []
        return
    dashboard.say(f"starting {demo} simulated TensorRT-LLM servers")
    async with simulated_fleet(demo, directory) as urls:
        yield urls
