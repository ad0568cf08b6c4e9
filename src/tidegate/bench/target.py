"""What a load run asks, and of which of its APIs.

Bench: workload → **target** → client → results. Pure: a URL in, the bytes of requests out.
"""

from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

from tidegate.bench.stream import CHAT, COMPLETION, GENERATE_STREAM, Dialect
from tidegate.bench.workload import Arrival
from tidegate.protocol.errors import ConfigError

FIX = "Write it like http://127.0.0.1:8080."


class Api(StrEnum):
    """The APIs that stream an answer."""

    CHAT = "chat completions"
    COMPLETION = "completions"
    GENERATE_STREAM = "generate_stream"
    """Triton's, with the fields of the TensorRT-LLM backend."""


_PATHS = {Api.CHAT: "/v1/chat/completions", Api.COMPLETION: "/v1/completions"}
_DIALECTS = {Api.CHAT: CHAT, Api.COMPLETION: COMPLETION, Api.GENERATE_STREAM: GENERATE_STREAM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One API of one server."""

    url: str
    """Where requests are posted."""
    api: Api
    model: str

    @property
    def dialect(self) -> Dialect:
        """How its answers are streamed."""
        return _DIALECTS[self.api]

    @property
    def authority(self) -> str:
        """`host:port`, as the URL has it."""
        return urlsplit(self.url).netloc

    def body(self, arrival: Arrival) -> bytes:
        """Return the JSON of the request."""
        if self.api is Api.GENERATE_STREAM:
            return msgspec.json.encode({"text_input": arrival.prompt, "max_tokens": arrival.max_tokens, "stream": True})
        prompt: dict[str, object] = {"prompt": arrival.prompt}
        if self.api is Api.CHAT:
            prompt = {"messages": [{"role": "user", "content": arrival.prompt}]}
        return msgspec.json.encode(
            {
                "model": self.model,
                **prompt,
                "max_tokens": arrival.max_tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )


def parse_target(url: str, *, model: str, api: Api = Api.CHAT) -> Target:
    """Return the target at `url`: a server's root, with or without /v1, or the URL of a generate_stream.

    A generate_stream is known by its path, which also names the model. Raises ConfigError for a bad `url`.
    """
    root = parse_root(url)
    if (named := generate_stream_model(root)) is not None:
        return Target(url=root, api=Api.GENERATE_STREAM, model=named)
    return Target(url=root + _PATHS[api], api=api, model=model)


def parse_root(url: str) -> str:
    """Return `url` without a closing slash or /v1. Raises ConfigError when it is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is not a URL: {error}", fix=FIX) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise ConfigError(f"{url!r} is not an http URL", fix=FIX)
    if parts.query or parts.fragment or "@" in parts.netloc or parts.path.endswith("/completions"):
        raise ConfigError(f"{url!r} is more than the root of a server", fix=FIX)
    return url.rstrip("/").removesuffix("/v1")


def generate_stream_model(url: str) -> str | None:
    """Return the model of a generate_stream's URL; None when it is none."""
    match urlsplit(url).path.split("/"):
        case ["", "v2", "models", model, "generate_stream"] | [
            "",
            "v2",
            "models",
            model,
            "versions",
            _,
            "generate_stream",
        ] if model:
            return model
    return None
