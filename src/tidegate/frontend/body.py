"""From the bytes of a request to a typed body, within limits."""

import asyncio
import re
from typing import TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request

from tidegate.frontend.errors import ApiError

MAX_BODY_BYTES = 16 * 2**20
"""Some four million tokens: more than any KV cache that is simulated."""
BODY_TIMEOUT_S = 60.0
"""How long a client may take to send a body."""

_FIELD = re.compile(r"`\$\.(\w+)|required field `(\w+)`")
_Body = TypeVar("_Body")


async def read_body(request: Request, *, limit_bytes: int) -> bytes:
    """Return the whole body.

    Raises:
        ApiError: 413 for one that is larger than the limit, 408 for one that does not come.
    """
    too_large = ApiError(
        f"The body is larger than this server's limit of {limit_bytes} bytes. Shorten the prompt",
        status=413,
        code="request_too_large",
    )
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit_bytes:
                    raise too_large
    except TimeoutError:
        raise ApiError(f"The body did not arrive within {BODY_TIMEOUT_S:g} s", status=408) from None
    except ClientDisconnect:
        raise ApiError("The client left before its body had arrived", status=400) from None
    return bytes(body)


def parse_body(body: bytes, kind: type[_Body]) -> _Body:
    """Return the body as a `kind`; unknown fields are ignored, as the real servers do.

    Raises:
        ApiError: 400, naming the field that is wrong.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        found = _FIELD.search(str(error))
        param = found and (found[1] or found[2])
        raise ApiError(f"{error}", status=400, param=param) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(f"The body is not valid JSON: {error}", status=400) from error
    except RecursionError as error:
        raise ApiError("The body is nested too deeply", status=400) from error
