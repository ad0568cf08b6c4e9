"""A Triton behind the HTTP API.

Flow: GenerationRequest → inputs → TritonClient → Answer → **Piece**.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from tidegate.frontend.generator import GenerationError, GenerationRequest, Piece
from tidegate.frontend.triton.answer import Answer
from tidegate.frontend.triton.catalogue import Catalogue
from tidegate.frontend.triton.client import TritonClient
from tidegate.frontend.triton.inputs import limit_of, render_inputs
from tidegate.frontend.triton.token_counts import TokenCounter
from tidegate.frontend.triton.token_meter import TokenMeter


class TritonGenerator:
    """A Generator whose pieces are a Triton's responses. `run` must run for requests to be answered."""

    def __init__(
        self, address: str, *, fetch_metrics: Callable[[], Awaitable[bytes]], counter: TokenCounter | None
    ) -> None:
        """Store what to ask.

        Args:
            address: host:port of Triton's gRPC.
            fetch_metrics: gives Triton's exposition, or raises ScrapeError.
            counter: counts the tokens that the model does not report; None: they are estimated.
        """
        self._address = address
        self._fetch_metrics = fetch_metrics
        self._counter = counter
        self._catalogue = Catalogue(address)
        self._client: TritonClient | None = None

    def models(self) -> Sequence[str]:
        """Return the models that generate text, as Triton last listed them."""
        return sorted(self._catalogue.models)

    def ready(self) -> bool:
        """Return whether Triton answers and has such a model ready."""
        return self._client is not None and self._catalogue.reachable and bool(self._catalogue.models)

    async def exposition(self) -> bytes:
        """Return Triton's metrics."""
        return await self._fetch_metrics()

    async def run(self) -> None:
        """Follow what Triton serves until cancelled; streams that are open then end with an error."""
        async with TritonClient(self._address) as client:
            self._client = client
            try:
                await self._catalogue.keep_fresh(client)
            finally:
                self._client = None

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Yield a piece for each response that brings text, and one for the end."""
        client, model = self._client, self._catalogue.models.get(request.model)
        if client is None:
            raise GenerationError("The server is stopping or has not started", status=503)
        if model is None:
            raise GenerationError(f"The model {request.model} is no longer there", status=404, param="model")
        values = render_inputs(model, request)
        answer = Answer(repeats=model.repeats)
        meter = TokenMeter(str(request.prompt), self._counter, streamed=model.decoupled)
        async with aclosing(client.infer(model, values)) as responses:
            async for response in responses:
                if text := answer.add(response):
                    meter.add(text)
                    # Where there are texts to stop at, any piece may be the last that the client sees.
                    yield Piece(text, usage=await meter.so_far(answer) if request.sampling.stop else None)
        rest = answer.end()
        meter.add(rest)
        usage = await meter.whole(answer)
        yield Piece(rest, answer.reason(usage.completion_tokens, limit_of(request)), usage)
