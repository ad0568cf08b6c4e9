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
_TELLS_OF_ITSELF = "Failed to process the request(s)"
"""How Triton begins to tell of an exception in a Python model, with instance, message and traceback."""
_WITHOUT_STATUS = {
    "no available versions": HTTPStatus.SERVICE_UNAVAILABLE,
    "is not ready": HTTPStatus.SERVICE_UNAVAILABLE,
    "is stopping": HTTPStatus.SERVICE_UNAVAILABLE,
    "maximum queue size": HTTPStatus.SERVICE_UNAVAILABLE,
    "unknown model": HTTPStatus.NOT_FOUND,
}
"""What is in the message of refusals that come within a stream, where a status has no place."""


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
    if message.startswith(_TELLS_OF_ITSELF):
        return GenerationError("The model failed. Triton's log says why", status=http_status)
    return GenerationError(f"Triton: {_first_line(message) or status}", status=http_status)


def refusal(message: str) -> GenerationError:
    """Return the error for a refusal within a stream."""
    status = next((status for words, status in _WITHOUT_STATUS.items() if words in message), HTTPStatus.BAD_GATEWAY)
    return GenerationError(f"Triton: {_first_line(message)}", status=status)


def _first_line(message: str) -> str:
    return message.partition("\n")[0].strip()[:MAX_MESSAGE_LENGTH]
