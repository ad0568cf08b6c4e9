"""Asks an OpenAI-compatible server which models it has."""

import aiohttp
import msgspec

from tidegate.bench.client import failure_words
from tidegate.protocol.errors import ConfigError

TIMEOUT_S = 10.0
MAX_BODY_BYTES = 2**20
_FIX = "Start the server, mend the URL, or name the model with --model."


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


async def first_model(root: str) -> str:
    """Return the first model of `root`/v1/models. Raises ConfigError when it is not told."""
    url = f"{root}/v1/models"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise ConfigError(f"{url} answers with status {response.status}", fix=_FIX)
            body = await _read(response.content, url)
    except TimeoutError as error:
        raise ConfigError(f"{url} gave no answer within {TIMEOUT_S:g} s", fix=_FIX) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ConfigError(f"{url} cannot be read: {failure_words(error)}", fix=_FIX) from error
    return _parse(body, url)


async def _read(content: aiohttp.StreamReader, url: str) -> bytes:
    body = bytearray()
    async for data in content.iter_any():
        body += data
        if len(body) > MAX_BODY_BYTES:
            raise ConfigError(f"{url} answers with more than {MAX_BODY_BYTES >> 20} MiB", fix=_FIX)
    return bytes(body)


def _parse(body: bytes, url: str) -> str:
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{url} answers with what is no list of models: {error}", fix=_FIX) from error
    if not models:
        raise ConfigError(f"{url} lists no model", fix=_FIX)
    return models[0].id
