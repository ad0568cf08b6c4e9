"""What Triton's refusals and failures are to an HTTP client.

Flow: status and message of gRPC → **GenerationError**.
"""

from http import HTTPStatus

from tidegate.frontend.generator import GenerationError

MAX_MESSAGE_LENGTH = 300

_STATUSES = {
    "INVALID_ARGUMENT": HTTPStatus.BAD_REQUEST,
    "OUT_OF_RANGE": HTTPStatus.BAD_REQUEST,
    "FAILED_PRECONDITION": HTTPStatus.BAD_REQUEST,
    "NOT_FOUND": HTTPStatus.NOT_FOUND,
    "ALREADY_EXISTS": HTTPStatus.CONFLICT,
    "RESOURCE_EXHAUSTED": HTTPStatus.TOO_MANY_REQUESTS,
    "UNAVAILABLE": HTTPStatus.SERVICE_UNAVAILABLE,
    "CANCELLED": HTTPStatus.SERVICE_UNAVAILABLE,
    "DEADLINE_EXCEEDED": HTTPStatus.GATEWAY_TIMEOUT,
    "INTERNAL": HTTPStatus.INTERNAL_SERVER_ERROR,
}
_NOT_THERE = {
    "UNAVAILABLE": "Triton cannot be reached, or takes no requests now",
    "CANCELLED": "Triton gave the request up",
    "DEADLINE_EXCEEDED": "Triton did not answer in time",
}
"""Instead of messages that tell of addresses and sockets."""
_EXCEPTION = "Failed to process the request(s)"
"""How Triton begins to tell of an exception in a Python model: with its message, instance and traceback."""
_IN_STREAM = {
    "no available versions": "UNAVAILABLE",
    "is not ready": "UNAVAILABLE",
    "is stopping": "UNAVAILABLE",
    "maximum queue size": "UNAVAILABLE",
    "unknown model": "NOT_FOUND",
}
"""What tells a refusal by Triton itself from a failure of the model, where there is no status."""


def failure(status: str, message: str) -> GenerationError:
    """Return the error for the client.

    Args:
        status: gRPC's name for it.
        message: Triton's own; only its first line is passed on, and nothing of an exception in the model.
    """
    http_status = _STATUSES.get(status, HTTPStatus.BAD_GATEWAY)
    if status in _NOT_THERE:
        return GenerationError(_NOT_THERE[status], status=http_status)
    if status == "RESOURCE_EXHAUSTED" and "larger than max" in message:
        return GenerationError("A message from or to Triton is larger than this server's limit", status=502)
    if message.startswith(_EXCEPTION):
        return GenerationError("The model failed. Triton's log says why", status=http_status)
    first_line = message.partition("\n")[0].strip()[:MAX_MESSAGE_LENGTH]
    return GenerationError(f"Triton: {first_line or status}", status=http_status)


def failure_in_stream(message: str) -> GenerationError:
    """Return the error for a message within a stream, which comes without a status."""
    return failure(next((status for words, status in _IN_STREAM.items() if words in message), "INTERNAL"), message)
