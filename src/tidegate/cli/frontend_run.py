"""What `tidegate frontend` runs. Needs the extra `triton`."""

import logging
import re
import socket
from pathlib import Path

import uvloop

from tidegate.frontend.app import create_app
from tidegate.frontend.chat_prompt import ChatTemplate
from tidegate.frontend.chat_template import read_chat_template
from tidegate.frontend.serving import bind, serve, url_of
from tidegate.frontend.triton.generator import TritonGenerator
from tidegate.frontend.triton.token_counts import TokenCounter, read_tokenizer
from tidegate.protocol.errors import ConfigError
from tidegate.publish.exporter.passed_on import PassedOnMetrics
from tidegate.scrape.http import HttpUrl, parse_url

METRICS_PORT = 8002

_ADDRESS = re.compile(r"(?P<host>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")


def run(triton: str, metrics: str, *, host: str, port: int, tokenizer: Path | None, chat_template: Path | None) -> None:
    """Serve until a signal. Raises ConfigError for arguments and files that will not do."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    metrics_url = parse_metrics_url(triton, metrics)
    counter = read_tokenizer(tokenizer) if tokenizer else None
    template = read_chat_template(chat_template) if chat_template else None
    with bind(host, port) as listener:
        uvloop.run(_serve(listener, triton, metrics_url, counter, template))


def _is_news(record: logging.LogRecord) -> bool:
    """Tell what is wrong from streams that are cut after their error event, on purpose."""
    return "without completing response" not in record.getMessage()


async def _serve(
    listener: socket.socket,
    triton: str,
    metrics_url: HttpUrl,
    counter: TokenCounter | None,
    template: ChatTemplate | None,
) -> None:
    url = url_of(listener)
    metrics = PassedOnMetrics(metrics_url)
    generator = TritonGenerator(triton, fetch_metrics=metrics.fetch, counter=counter)
    application = create_app(generator, name=url.removeprefix("http://"), chat_template=template)

    def announce() -> None:
        print(f"tidegate frontend: {url}/v1 serves the models of Triton at {triton}", flush=True)

    try:
        await serve(application, listener, drive=generator.run(), on_listening=announce)
    finally:
        metrics.close()


def parse_metrics_url(triton: str, metrics: str) -> HttpUrl:
    """Return where Triton's metrics are: as told, or else at the usual port of the host in `triton`.

    Raises:
        ConfigError: one of the two is malformed.
    """
    address = _ADDRESS.fullmatch(triton)
    if address is None or not 0 < int(address["port"]) < 2**16:
        fix = "Write it as host:port; Triton's gRPC port is 8001 unless it was told otherwise."
        raise ConfigError(f"{triton[:200]!r} is no address", key="--triton", fix=fix)
    if metrics:
        return parse_url(metrics)
    return HttpUrl(address["host"].strip("[]"), METRICS_PORT, "/metrics")
