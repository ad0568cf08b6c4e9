"""Drives a simulated batch manager in real time, on a thread of its own.

Flow: Job → BatchManager.step, one iteration after the other → Client.send; and statistics JSON → Reporter.
"""

import itertools
import queue
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from tidegate.frontend.tokens import Answer, tokenize
from tidegate.publish.reporter import Reporter
from tidegate.publish.statistics import parse_statistics
from tidegate.simulator.batch_manager import BatchManager
from tidegate.simulator.iteration import BatchLoad, Iteration
from tidegate.simulator.kv_cache import hash_blocks
from tidegate.simulator.request import Request, RequestTooLongError
from tidegate.simulator.statistics import render_statistics


class Client(Protocol):
    """Whoever waits for an answer. Called from the driver's thread.

    At the end comes, once, a last `send`, `refuse` or `fail`.
    """

    def has_left(self) -> bool:
        """Return whether nobody wants the answer any more."""

    def send(self, text: str, *, last: bool) -> None:
        """Pass on the next part of the answer."""

    def refuse(self, problem: str) -> None:
        """Say that the request itself is wrong."""

    def fail(self, problem: str) -> None:
        """End the answer with an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request and who asked for it."""

    prompt: str
    max_tokens: int
    stream: bool
    """Whether each token is sent as it comes, or the whole answer at the end."""
    client: Client


@dataclass(slots=True)
class _Running:
    """A job on its way through the batch manager."""

    job: Job
    prompt_tokens: int
    words: Answer
    unsent: list[str] = field(default_factory=list)
    emitted: int = 0


class Driver:
    """Owns the batch manager and the reporter: after `start`, only its thread touches them."""

    def __init__(self, manager: BatchManager, reporter: Reporter) -> None:
        self._manager = manager
        self._reporter = reporter
        self._arrivals: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._running: dict[str, _Running] = {}
        self._request_ids = map(str, itertools.count(1))
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="batch manager", daemon=True)

    def start(self) -> None:
        """Publish the idle statistics, so that an idle server shows zeros, then begin to answer."""
        self._report(self._manager.load())
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Answer it, in turn. To be called from any thread, between `start` and `stop`."""
        self._arrivals.put(job)

    def stop(self) -> None:
        """End the thread after the iteration that runs; unfinished answers end with an error."""
        self._arrivals.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._iterate()
        finally:
            for running in self._running.values():
                running.job.client.fail("the server is stopping")

    def _iterate(self) -> None:
        start = time.monotonic()
        while not self._stopping:
            iteration = self._manager.step(start)
            if iteration is None:
                self._report(self._manager.load())
                self._accept(self._arrivals.get())
                start = time.monotonic()
                continue
            end = start + iteration.duration_s
            time.sleep(max(0.0, end - time.monotonic()))
            while not self._arrivals.empty():
                self._accept(self._arrivals.get())
            self._publish(iteration)
            self._drop_abandoned()
            start = iteration.next_start(end, time.monotonic())

    def _accept(self, job: Job | None) -> None:
        if job is None:
            self._stopping = True
            return
        request_id = next(self._request_ids)
        token_ids = tokenize(job.prompt)
        request = Request(
            request_id=request_id,
            prompt_tokens=len(token_ids),
            block_hashes=hash_blocks(token_ids, self._manager.limits.tokens_per_block),
            max_tokens=job.max_tokens,
        )
        try:
            self._manager.submit(request, time.monotonic())
        except (RequestTooLongError, ValueError) as error:
            job.client.refuse(str(error))
        else:
            self._running[request_id] = _Running(job, len(token_ids), Answer(token_ids))

    def _publish(self, iteration: Iteration) -> None:
        # TensorRT-LLM counts the queue when the iteration has ended: requests have come meanwhile.
        self._report(replace(iteration.load, queued_requests=self._manager.queued_requests))
        for request_id in iteration.emitted:
            self._deliver(request_id, last=request_id in iteration.finished)

    def _deliver(self, request_id: str, *, last: bool) -> None:
        running = self._running[request_id]
        running.emitted += 1
        running.unsent.append(running.words.next_token())
        if last:
            del self._running[request_id]
            self._reporter.observe(input_tokens=running.prompt_tokens, output_tokens=running.emitted)
        if last or running.job.stream:
            running.job.client.send("".join(running.unsent), last=last)
            running.unsent.clear()

    def _drop_abandoned(self) -> None:
        for request_id, running in list(self._running.items()):
            if running.job.client.has_left():
                del self._running[request_id]
                self._manager.cancel(request_id)
                running.job.client.fail("the client has left")

    def _report(self, load: BatchLoad) -> None:
        raw = render_statistics(load, self._manager.limits, datetime.now().astimezone())
        self._reporter.report(parse_statistics(raw))
