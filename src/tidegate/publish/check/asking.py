"""Asks a server for single tokens: whether OpenAI's API is there, and whether answers carry load headers."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from tidegate.protocol.conformance.api import ApiAnswer
from tidegate.protocol.conformance.orca import ANSWER_HEADER, ASKED_FOR, REQUEST_HEADER, OrcaAnswer

ANSWER_TIMEOUT_S = 30.0
"""Limit on one answer: a busy server has others to serve first."""
MAX_ANSWER_BYTES = 2**20
COMPLETIONS_PATH = "/v1/completions"
CHAT_PATH = "/v1/chat/completions"

_PROMPT = "Hello"


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    header: str | None
    body: bytes


class Client:
    """One server's requests."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        """`base_url`: without a slash at the end."""
        self._session = session
        self._base_url = base_url

    async def model(self, otherwise: str) -> str:
        """Return the first model that the server lists; `otherwise`: where it lists none."""
        try:
            async with self._session.get(f"{self._base_url}/v1/models", allow_redirects=False) as response:
                document = json.loads(await _read(response))
            return str(document["data"][0]["id"])
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError, LookupError, TypeError):
            return otherwise

    async def ask_api(self, model: str) -> Sequence[ApiAnswer]:
        """Return how a completion and a chat completion of one token went, in this order."""
        return [await self._ask_for_token(path, model) for path in (COMPLETIONS_PATH, CHAT_PATH)]

    async def ask_orca(self, model: str, *, triton: bool) -> Sequence[OrcaAnswer]:
        """Return the load headers of a plain and of a streamed answer. `triton`: by its own API, where it has them."""
        return [await self._ask_for_load(model, streamed=streamed, triton=triton) for streamed in (False, True)]

    async def _ask_for_token(self, path: str, model: str) -> ApiAnswer:
        clock = asyncio.get_running_loop().time
        started_at = clock()
        response = await self._post(path, _body(path, model, streamed=False), {})
        took_s = clock() - started_at
        if isinstance(response, str):
            return ApiAnswer(path=path, status=None, body=b"", problem=response, took_s=took_s)
        return ApiAnswer(path=path, status=response.status, body=response.body, problem="", took_s=took_s)

    async def _ask_for_load(self, model: str, *, streamed: bool, triton: bool) -> OrcaAnswer:
        path = (
            f"/v2/models/{quote(model, safe='')}/generate{'_stream' if streamed else ''}"
            if triton
            else COMPLETIONS_PATH
        )
        response = await self._post(path, _body(path, model, streamed=streamed), {REQUEST_HEADER: ASKED_FOR})
        if isinstance(response, str):
            return OrcaAnswer(path=path, streamed=streamed, header=None, problem=response)
        problem = "" if response.status == 200 else f"status {response.status}"
        return OrcaAnswer(path=path, streamed=streamed, header=response.header, problem=problem)

    async def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> _Response | str:
        """Return the answer, or why there is none."""
        try:
            async with self._session.post(
                self._base_url + path, json=body, headers=headers, allow_redirects=False
            ) as response:
                return _Response(response.status, response.headers.get(ANSWER_HEADER), await _read(response))
        except TimeoutError:
            return f"no whole answer within {ANSWER_TIMEOUT_S:g} s"
        except (aiohttp.ClientError, ValueError) as error:
            return " ".join(str(error).split()) or type(error).__name__


def open_session() -> aiohttp.ClientSession:
    """Return the session for all clients; the caller closes it."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S))


def _body(path: str, model: str, *, streamed: bool) -> dict[str, Any]:
    if path.startswith("/v2/"):
        return {"text_input": _PROMPT, "max_tokens": 1, "stream": streamed}
    prompt = {"messages": [{"role": "user", "content": _PROMPT}]} if path == CHAT_PATH else {"prompt": _PROMPT}
    return {"model": model, **prompt, "max_tokens": 1, "stream": streamed}


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, cut off where it is larger than any answer of one token."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body)
