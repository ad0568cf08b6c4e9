"""Refusals as clients read them: OpenAI's error object, and the texts of the Go endpoint picker."""

import msgspec

from tidegate.protocol.errors import RequestRejected

MAX_BODY_BYTES = 10 * 2**20

INFERENCE_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages")
"""Where a body must name its model; other paths are routed by load alone, whatever their body."""


class _Body(msgspec.Struct):
    model: str = ""


_BODY = msgspec.json.Decoder(_Body)


def check_model(path: str, body: bytes | bytearray) -> None:
    """Raise RequestRejected, 400, when an inference request does not name its model."""
    if not path.endswith(INFERENCE_PATHS):
        return
    try:
        model = _BODY.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError):  # not JSON, not an object, or `model` is no string
        model = ""
    if not model:
        raise RequestRejected("inference error: BadRequest - model not found in request body", status=400)


def no_endpoints() -> RequestRejected:
    """Return the refusal of a request that no endpoint can take."""
    return RequestRejected(
        "inference error: ServiceUnavailable - failed to find endpoint candidates for serving the request",
        status=503,
        reason="rejected-no-endpoints",
    )


def too_large() -> RequestRejected:
    """Return the refusal of a body that we will not hold."""
    return RequestRejected(f"inference error: the body exceeds {MAX_BODY_BYTES} bytes", status=413)


def render_error(rejected: RequestRejected) -> bytes:
    """Return the body of the refusal: an OpenAI error object."""
    kind = "invalid_request_error" if rejected.status < 500 else "service_unavailable"
    return msgspec.json.encode(
        {"error": {"message": str(rejected), "type": kind, "param": None, "code": rejected.reason or None}}
    )
