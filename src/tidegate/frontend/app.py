"""The HTTP API: which path does what."""

from collections.abc import Callable
from http import HTTPStatus

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidegate.frontend.body import MAX_BODY_BYTES
from tidegate.frontend.chat_prompt import ChatTemplate, RolePrefixes
from tidegate.frontend.errors import ApiError, error_response, render_openai_error
from tidegate.frontend.generator import Generator
from tidegate.frontend.openai_api import OpenAiApi
from tidegate.frontend.triton_api import TritonApi
from tidegate.protocol.errors import ScrapeError
from tidegate.publish.prometheus import CONTENT_TYPE

_JSON = "application/json"


def create_app(
    generator: Generator,
    *,
    name: str,
    exposition_path: str = "/metrics",
    drain_statistics: Callable[[], bytes] | None = None,
    chat_template: ChatTemplate | None = None,
    body_limit_bytes: int = MAX_BODY_BYTES,
) -> Starlette:
    """Return the API in front of `generator`.

    Args:
        name: what answers say of who served them.
        exposition_path: where the Prometheus text is.
        drain_statistics: renders the iterations since its last call as JSON, for `/metrics` as trtllm-serve has it;
            the exposition must then be elsewhere.
        chat_template: makes a prompt of a conversation; None: by each message's role.
    """
    openai = OpenAiApi(
        generator, name=name, chat_template=chat_template or RolePrefixes(), body_limit_bytes=body_limit_bytes
    )
    triton = TritonApi(generator, name=name, body_limit_bytes=body_limit_bytes)

    async def models(_: Request) -> Response:
        listed = [_model(model, name) for model in generator.models()]
        return Response(msgspec.json.encode({"object": "list", "data": listed}), media_type=_JSON)

    async def one_model(request: Request) -> Response:
        model = request.path_params["model"]
        if model not in generator.models():
            raise ApiError(f"The model {model[:200]!r} does not exist here", status=404, code="model_not_found")
        return Response(msgspec.json.encode(_model(model, name)), media_type=_JSON)

    async def health(_: Request) -> Response:
        return Response(status_code=HTTPStatus.OK if generator.ready() else HTTPStatus.SERVICE_UNAVAILABLE)

    async def exposition(_: Request) -> Response:
        try:
            body = await generator.exposition()
        except ScrapeError as error:
            return Response(f"{error}\n", status_code=HTTPStatus.BAD_GATEWAY, media_type="text/plain")
        return Response(body, headers={"content-type": CONTENT_TYPE})

    routes = [
        Route("/v1/completions", openai.completions, methods=["POST"]),
        Route("/v1/chat/completions", openai.chat_completions, methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{model:path}", one_model),
        Route("/health", health),
        Route("/health/ready", health),
        Route("/v2/health/ready", health),
        Route("/v2/models/{model:path}/generate", triton.generate, methods=["POST"]),
        Route("/v2/models/{model:path}/generate_stream", triton.generate_stream, methods=["POST"]),
        Route(exposition_path, exposition),
    ]
    if drain_statistics is not None:

        async def iterations(_: Request) -> Response:
            return Response(drain_statistics(), media_type=_JSON)

        routes.append(Route("/metrics", iterations))
    return Starlette(routes=routes, exception_handlers={ApiError: _answer_error, HTTPException: _answer_http_error})


def _model(model: str, owner: str) -> dict[str, object]:
    return {"id": model, "object": "model", "created": 0, "owned_by": owner}


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)  # noqa: S101 - Starlette's handlers are registered by type, and typed without
    return error_response(error, render_openai_error(error))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    message = f"{error.detail}: {request.method} {request.url.path[:200]}"
    return await _answer_error(request, ApiError(message, status=error.status_code))
