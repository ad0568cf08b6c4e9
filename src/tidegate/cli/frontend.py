"""`tidegate frontend`: OpenAI's API in front of a Triton."""

from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.options import parse_port
from tidegate.protocol.errors import ConfigError

EXTRA = frozenset({"jinja2", "tokenizers", "tritonclient"})
"""What the extra `triton` installs."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def frontend(
    triton: Annotated[str, typer.Option(metavar="HOST:PORT", help="Triton's gRPC port.")] = "localhost:8001",
    metrics: Annotated[
        str,
        typer.Option(metavar="URL", help="Triton's metrics.", show_default="http://HOST:8002/metrics"),
    ] = "",
    port: Annotated[
        int, typer.Option(parser=parse_port, metavar="PORT", help="Port to listen on; 0 takes a free one.")
    ] = 9000,
    host: Annotated[str, typer.Option(metavar="IP", help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The model's tokenizer.json, to count the tokens that Triton does not report.",
            show_default="estimated",
        ),
    ] = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The model's chat template: tokenizer_config.json, or the template alone.",
            show_default="each message behind its role",
        ),
    ] = None,
) -> None:
    """Serve OpenAI's API in front of a Triton.

    Completions and chat completions, streamed or whole, of every model in Triton that generates text: of TensorRT-LLM
    in all its forms, of vLLM, of your own with text_input and text_output. /metrics is Triton's own, with the composite
    series where they are missing. It waits for a Triton that is not there yet.

    \b
    Examples:
      tidegate frontend --triton localhost:8001
      tidegate frontend --triton gpu-2:8001 --tokenizer tokenizer.json
    """
    try:
        # Here, so that --help does without the extra.
        from tidegate.cli.frontend_run import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        fix = "Run: pip install 'tidegate[triton]'"
        raise ConfigError(f"tidegate frontend needs {missing}, which is not installed", fix=fix) from error
    run(triton, metrics, host=host, port=port, tokenizer=tokenizer, chat_template=chat_template)
