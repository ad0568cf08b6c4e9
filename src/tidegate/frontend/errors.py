"""Errors as the two APIs say them."""

from http import HTTPStatus

import msgspec
from starlette.responses import Response

from tidegate.protocol.errors import TidegateError


class ApiError(TidegateError):
    """A request that gets no answer; the attributes are OpenAI's."""

    def __init__(self, message: str, *, status: int, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        """The field of the request that is wrong."""
        self.code = code
        """The kind of mistake, for programs."""


def render_openai_error(error: ApiError) -> bytes:
    """Return the error object of OpenAI's API."""
    kind = "invalid_request_error" if error.status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    return msgspec.json.encode(
        {"error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}}
    )


def render_triton_error(error: ApiError) -> bytes:
    """Return the error object of Triton's HTTP API."""
    return msgspec.json.encode({"error": str(error)})


def error_response(error: ApiError, content: bytes) -> Response:
    """Return the rendered error as a response."""
    # The rest of a body that was too large is never read, so the connection is of no further use.
    headers = {"connection": "close"} if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else None
    return Response(content, status_code=error.status, media_type="application/json", headers=headers)
