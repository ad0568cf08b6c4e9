"""Drives a simulated batch manager in real time.

Flow: GenerationRequest → BatchManager.step, one iteration after the other → a queue per request → Piece.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from tidegate.frontend.generator import FinishReason, GenerationError, GenerationRequest, Piece, Usage
from tidegate.frontend.metrics import ServerMetrics
from tidegate.frontend.tokens import Answer, tokenize
from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.iteration import Iteration
from tidegate.simulator.kv_cache import hash_blocks
from tidegate.simulator.request import Request, RequestTooLongError

DEFAULT_ANSWER_TOKENS = 64
"""After how many tokens the simulated model ends an answer that no max_tokens limits."""


class _Stream:
    """The way of one request's pieces from the iterations to its client."""

    def __init__(self, token_ids: Sequence[int], *, any_may_be_last: bool) -> None:
        self._any_may_be_last = any_may_be_last
        self.prompt_tokens = len(token_ids)
        self.emitted = 0
        self.cached_tokens = 0
        self._answer = Answer(token_ids)
        # Holds one piece per token at most, and the batch manager emits no more than max_tokens.
        self._pieces: asyncio.Queue[Piece | GenerationError] = asyncio.Queue()

    def deliver(self, finish_reason: FinishReason | None) -> None:
        """Add the next token, the last one if there is a reason to finish."""
        self.emitted += 1
        usage = self.usage() if finish_reason or self._any_may_be_last else None
        self._pieces.put_nowait(Piece(self._answer.next_token(), finish_reason, usage))

    def fail(self, error: GenerationError) -> None:
        """End the answer after what was delivered."""
        self._pieces.put_nowait(error)

    def usage(self) -> Usage:
        return Usage(prompt_tokens=self.prompt_tokens, completion_tokens=self.emitted, cached_tokens=self.cached_tokens)

    async def next_piece(self) -> Piece:
        piece = await self._pieces.get()
        if isinstance(piece, GenerationError):
            raise piece
        return piece


class SimulatedGenerator:
    """A Generator whose tokens come when a batch manager says so. `run` must run for requests to be answered."""

    def __init__(self, manager: BatchManager, metrics: ServerMetrics, *, model: str) -> None:
        self._manager = manager
        self._metrics = metrics
        self._model = model
        self._streams: dict[str, _Stream] = {}
        self._request_ids = map(str, itertools.count(1))
        self._wake = asyncio.Event()
        self._running = False

    def models(self) -> Sequence[str]:
        """Return the one model's name."""
        return (self._model,)

    def ready(self) -> bool:
        """Return whether `run` is running."""
        return self._running

    async def exposition(self) -> bytes:
        """Return the metrics as of the last iteration."""
        return self._metrics.exposition()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Piece, None]:
        """Yield one piece per token."""
        if not self._running:
            raise GenerationError("The server is stopping or has not started", status=503)
        request_id = next(self._request_ids)
        token_ids = tokenize(request.prompt)
        stream = _Stream(token_ids, any_may_be_last=bool(request.sampling.stop))
        self._submit(request_id, token_ids, request.max_tokens)
        self._streams[request_id] = stream
        self._wake.set()
        try:
            finished = False
            while not finished:
                piece = await stream.next_piece()
                finished = piece.finish_reason is not None
                yield piece
        finally:
            del self._streams[request_id]
            self._manager.cancel(request_id)

    def _submit(self, request_id: str, token_ids: Sequence[int], max_tokens: int | None) -> None:
        request = Request(
            request_id=request_id,
            prompt_tokens=len(token_ids),
            block_hashes=hash_blocks(token_ids, self._manager.limits.tokens_per_block),
            max_tokens=DEFAULT_ANSWER_TOKENS + 1 if max_tokens is None else max_tokens,
            stop_after=DEFAULT_ANSWER_TOKENS if max_tokens is None else None,
        )
        try:
            self._manager.submit(request, asyncio.get_running_loop().time())
        except RequestTooLongError as error:
            raise GenerationError(str(error), status=400) from error

    async def run(self) -> None:
        """Run one iteration after the other until cancelled; streams that are open then end with an error."""
        self._running = True
        try:
            await self._iterate()
        finally:
            self._running = False
            for stream in self._streams.values():
                stream.fail(GenerationError("The server is stopping", status=503))

    async def _iterate(self) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            iteration = self._manager.step(start)
            if iteration is None:
                self._metrics.observe_idle(self._manager.load())
                self._wake.clear()
                await self._wake.wait()
                start = loop.time()
                continue
            end = start + iteration.duration_s
            await asyncio.sleep(end - loop.time())
            self._publish(iteration)
            start = iteration.next_start(end, loop.time())

    def _publish(self, iteration: Iteration) -> None:
        # TensorRT-LLM counts the queue when the iteration has ended: requests have come meanwhile.
        self._metrics.observe_iteration(replace(iteration.load, queued_requests=self._manager.queued_requests))
        self._note_cached_tokens(iteration.cached_tokens)
        for request_id in iteration.emitted:
            # A client may have left while the iteration ran.
            if (stream := self._streams.get(request_id)) is not None:
                reason = iteration.finished.get(request_id)
                stream.deliver(reason.value if reason else None)
                if reason:
                    self._metrics.observe_finished(stream.usage())

    def _note_cached_tokens(self, cached_tokens: Mapping[str, int]) -> None:
        for request_id, tokens in cached_tokens.items():
            stream = self._streams.get(request_id)
            # A paused request that starts again finds its own prompt: that saved the client nothing.
            if stream is not None and not stream.emitted:
                stream.cached_tokens = tokens
