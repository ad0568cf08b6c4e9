"""Requests and their times, drawn from a seed: what every run of a comparison replays.

Bench: **workload** → client → results → report.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
from numpy.random import Generator, default_rng

from tidegate.bench.lengths import TokenLengths
from tidegate.frontend.tokens import BYTES_PER_TOKEN
from tidegate.protocol.errors import ConfigError

MAX_ARRIVALS = 1_000_000
"""More than this is a slip in the arguments, and would fill the memory with prompts."""

MAX_BURSTINESS = 100
"""Far above it most gaps are exactly 0, and whole runs fall on one moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request and when to send it."""

    at_s: float
    """When it is sent, whatever became of those before; seconds since the run began."""
    prompt: str
    """User message; ASCII, `prompt_tokens` words of 4 bytes each, their space included."""
    prompt_tokens: int
    max_tokens: int
    """Length of the answer asked for; tokens, >= 1."""
    prefix_group: int | None = None
    """Requests of one group begin with the same text; None begins like no other."""


SHORT_PROMPTS = TokenLengths(median_tokens=100, sigma=0.4, max_tokens=400)
LONG_PROMPTS = TokenLengths(median_tokens=1_500, sigma=0.3, max_tokens=3_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptMix:
    """Short chat turns, and now and then a long document: what makes counting requests a poor measure of load."""

    short: TokenLengths = SHORT_PROMPTS
    long: TokenLengths = LONG_PROMPTS
    long_share: float = 0.1
    """Share of the requests with a long prompt; ratio in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedPrefixes:
    """System prompts that many requests have in common, a few of them far more popular than the rest."""

    groups: int
    """How many different prefixes; count, >= 1."""
    tokens: int
    """Length of each, in front of the request's own prompt; tokens, >= 1."""
    zipf: float = 1.0
    """Popularity of the k-th prefix is 1 / k**zipf; 0 makes all equally popular."""


DEFAULT_OUTPUTS = TokenLengths(median_tokens=60, sigma=0.7, max_tokens=300)


def bursty_workload(
    *,
    seed: int,
    duration_s: float,
    rate_per_s: float,
    burstiness: float = 4.0,
    prompts: PromptMix | None = None,
    outputs: TokenLengths = DEFAULT_OUTPUTS,
    prefixes: SharedPrefixes | None = None,
) -> list[Arrival]:
    """Return the arrivals of `duration_s` seconds, by time; the same arguments give the same ones.

    The gaps between requests are gamma distributed with mean 1 / `rate_per_s`, and `burstiness` is the square of their
    coefficient of variation: 1 is a Poisson process, at 4 requests come in clumps with pauses between. Times are drawn
    first, so that lengths and texts can change without moving them. Raises ConfigError.
    """
    _check(duration_s, rate_per_s, burstiness)
    rng = default_rng(seed)
    at_s = list(takewhile(lambda at: at < duration_s, arrival_times(rng, rate_per_s, burstiness)))
    prompt_tokens = _prompt_lengths(rng, prompts or PromptMix(), len(at_s))
    max_tokens = outputs.draw(rng, len(at_s))
    groups: list[int] | None = None
    shared: list[str] = []
    if prefixes is not None:
        weights = 1.0 / np.arange(1, prefixes.groups + 1) ** prefixes.zipf
        groups = rng.choice(prefixes.groups, size=len(at_s), p=weights / weights.sum()).tolist()
        shared = [random_text(rng, prefixes.tokens) for _ in range(prefixes.groups)]

    arrivals = []
    for i, (at, own_tokens) in enumerate(zip(at_s, prompt_tokens, strict=True)):
        group = groups[i] if groups is not None else None
        prompt = (shared[group] if group is not None else "") + random_text(rng, own_tokens)
        arrivals.append(
            Arrival(
                at_s=at,
                prompt=prompt,
                prompt_tokens=len(prompt) // BYTES_PER_TOKEN,
                max_tokens=max_tokens[i],
                prefix_group=group,
            )
        )
    return arrivals


def _check(duration_s: float, rate_per_s: float, burstiness: float) -> None:
    for name, value in (("duration_s", duration_s), ("rate_per_s", rate_per_s), ("burstiness", burstiness)):
        if not 0 < value < float("inf"):
            raise ConfigError(f"{value} is not a positive number", key=name, fix="Give a number above 0.")
    if burstiness > MAX_BURSTINESS:
        raise ConfigError(
            f"{burstiness:g} is above {MAX_BURSTINESS}", key="burstiness", fix="1 is a Poisson process, 4 is bursty."
        )
    if duration_s * rate_per_s > MAX_ARRIVALS:
        raise ConfigError(
            f"{duration_s:g} s at {rate_per_s:g} requests/s are more than {MAX_ARRIVALS} requests",
            fix="Shorten the run or lower the rate.",
        )


def arrival_times(rng: Generator, rate_per_s: float, burstiness: float) -> Iterator[float]:
    """Yield the times of requests without end, ascending; seconds, above 0.

    `burstiness` is the squared coefficient of variation of the gaps between them.
    """
    now = 0.0
    while True:
        # Gamma with shape k has a squared coefficient of variation of 1 / k.
        now += rng.gamma(1 / burstiness, burstiness / rate_per_s)
        yield now


def _prompt_lengths(rng: Generator, mix: PromptMix, count: int) -> list[int]:
    is_long = (rng.random(count) < mix.long_share).tolist()
    short, long = mix.short.draw(rng, count), mix.long.draw(rng, count)
    return [long[i] if is_long[i] else short[i] for i in range(count)]


def random_text(rng: Generator, tokens: int) -> str:
    """Return `tokens` random three-letter words, each with its space: no two texts share a beginning by chance."""
    words = np.full((tokens, BYTES_PER_TOKEN), ord(" "), dtype=np.uint8)
    words[:, :-1] = rng.integers(ord("a"), ord("z") + 1, size=(tokens, BYTES_PER_TOKEN - 1), dtype=np.uint8)
    return words.tobytes().decode("ascii")
