"""`tidegate sim`: one simulated model server."""

from typing import Annotated

import typer
import uvloop
from starlette.applications import Starlette

from tidegate.cli.options import parse_amount, parse_port, whole
from tidegate.frontend.app import create_app
from tidegate.frontend.metrics import MAX_KEPT_ITERATIONS, EngineMetrics, TritonMetrics
from tidegate.frontend.serving import bind, serve, url_of
from tidegate.frontend.simulated import SimulatedGenerator
from tidegate.protocol.engines import ENGINES, engine_named
from tidegate.protocol.errors import ConfigError
from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.cost import CostModel
from tidegate.simulator.limits import CapacityPolicy, Limits

TRITON_TENSORRT_LLM = "triton-tensorrt-llm"
TRTLLM_SERVE = "trtllm-serve"
# Triton itself publishes a queue for models of all kinds, which stays empty for an LLM.
# Shortest first: the help breaks lines at hyphens too, and longer names begin new ones.
SIMULATED_ENGINES = tuple(sorted((engine for engine in ENGINES if engine != "triton"), key=len))

DEFAULT_LIMITS = Limits()
DEFAULT_COST = CostModel()

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def sim(
    port: Annotated[
        int, typer.Option(parser=parse_port, metavar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    host: Annotated[str, typer.Option(metavar="IP", help="Address to listen on.")] = "127.0.0.1",
    engine: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help=f"Whose names for metrics to publish, one of: {', '.join(SIMULATED_ENGINES)}.",
            show_default="the last",
        ),
    ] = TRITON_TENSORRT_LLM,
    model: Annotated[str, typer.Option(metavar="NAME", help="Name of the model it serves.")] = "tensorrt_llm",
    name: Annotated[
        str, typer.Option(metavar="NAME", help="What answers say of who served them.", show_default="HOST:PORT")
    ] = "",
    max_batch_size: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="Requests that run at a time; others wait.")
    ] = DEFAULT_LIMITS.max_batch_size,
    max_tokens_per_iteration: Annotated[
        int,
        typer.Option(
            parser=whole(1),
            metavar="N",
            help="Prompt and generated tokens of one iteration; longer prompts go in chunks.",
        ),
    ] = DEFAULT_LIMITS.max_tokens_per_iteration,
    num_blocks: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="KV-cache blocks.")
    ] = DEFAULT_LIMITS.num_blocks,
    tokens_per_block: Annotated[
        int, typer.Option(parser=whole(1), metavar="N", help="Tokens in one KV-cache block.")
    ] = DEFAULT_LIMITS.tokens_per_block,
    capacity_policy: Annotated[
        CapacityPolicy,
        typer.Option(
            metavar="POLICY",
            help="guaranteed-no-evict starts a request when its longest answer fits, max-utilization when its prompt "
            "does.",
            show_default="the former",
        ),
    ] = DEFAULT_LIMITS.capacity_policy,
    iteration_ms: Annotated[
        float,
        typer.Option(parser=parse_amount, metavar="MS", help="Milliseconds of an iteration before any work in it."),
    ] = DEFAULT_COST.iteration_base_s * 1000,
    prefill_us: Annotated[
        float, typer.Option(parser=parse_amount, metavar="US", help="Microseconds per prompt token that is not cached.")
    ] = DEFAULT_COST.prefill_s_per_token * 1e6,
    decode_us: Annotated[
        float,
        typer.Option(parser=parse_amount, metavar="US", help="Microseconds per generating request and iteration."),
    ] = DEFAULT_COST.decode_s_per_request * 1e6,
) -> None:
    """Run one simulated model server.

    It queues, batches and runs out of KV cache as TensorRT-LLM does. It speaks OpenAI's API (/v1/completions,
    /v1/chat/completions) and Triton's (/v2/models/MODEL/generate), and publishes /metrics under any engine's names.
    Four bytes of a prompt are a token; answers are words of no meaning.
    """
    if engine_named(engine).name not in SIMULATED_ENGINES:
        fix = f"Use one of: {', '.join(SIMULATED_ENGINES)}."
        raise ConfigError(f"engine {engine} publishes nothing of an LLM", key="--engine", fix=fix)
    limits = Limits(
        max_batch_size=max_batch_size,
        max_tokens_per_iteration=max_tokens_per_iteration,
        num_blocks=num_blocks,
        tokens_per_block=tokens_per_block,
        capacity_policy=capacity_policy,
    )
    cost = CostModel(
        iteration_base_s=iteration_ms / 1000,
        prefill_s_per_token=prefill_us / 1e6,
        decode_s_per_request=decode_us / 1e6,
    )
    with bind(host, port) as listener:
        url = url_of(listener)
        served_by = name or url.removeprefix("http://")
        generator, http_api = build(limits, cost, engine=engine, model=model, name=served_by)

        def announce() -> None:
            print(f"tidegate sim {served_by}: serving {model} on {url} (engine {engine})", flush=True)

        uvloop.run(serve(http_api, listener, drive=generator.run(), on_listening=announce))


def build(
    limits: Limits, cost: CostModel, *, engine: str, model: str, name: str
) -> tuple[SimulatedGenerator, Starlette]:
    """Return a simulated server that publishes as `engine` does: what generates, and the HTTP API before it."""
    manager = BatchManager(limits, cost)
    if engine == TRITON_TENSORRT_LLM:
        generator = SimulatedGenerator(manager, TritonMetrics(limits, model=model), model=model)
        return generator, create_app(generator, name=name)
    if engine == TRTLLM_SERVE:
        # trtllm-serve has JSON statistics where the others have their exposition.
        metrics = EngineMetrics(engine_named(engine), limits, model=model, kept_iterations=MAX_KEPT_ITERATIONS)
        generator = SimulatedGenerator(manager, metrics, model=model)
        return generator, create_app(
            generator,
            name=name,
            exposition_path="/prometheus/metrics",
            drain_statistics=metrics.drain_statistics,
        )
    generator = SimulatedGenerator(manager, EngineMetrics(engine_named(engine), limits, model=model), model=model)
    return generator, create_app(generator, name=name)
