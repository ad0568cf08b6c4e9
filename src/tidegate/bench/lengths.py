"""How many tokens prompts and answers have: a fixed number, an even spread, or a log-normal one.

Bench: **lengths** → workload, load_plan → client → results.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from tidegate.protocol.errors import ConfigError

MAX_TOKENS = 1_000_000
"""More in one prompt or answer than any model takes: a slip in the arguments."""
MAX_SIGMA = 3.0
LONGEST_PER_MEDIAN = 20
"""Log-normal lengths are cut to this many medians: without end, one request could be the whole run."""

GRAMMAR = "Use 256, 100..500 (evenly spread) or lognormal:200,0.8 (median, sigma)."

_NUMBER = re.compile(r"(\d{1,9})", re.ASCII)
_RANGE = re.compile(r"(\d{1,9})\.\.(\d{1,9})", re.ASCII)
_LOG_NORMAL = re.compile(r"lognormal:(\d{1,9}),(\d{1,9}(?:\.\d{1,9})?)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLengths:
    """Log-normal lengths, as measured for chat traffic: most near the median, a few far above it."""

    median_tokens: float
    sigma: float
    """Standard deviation of the logarithm; 0 makes all lengths equal."""
    max_tokens: int
    """Longer ones are cut to this."""

    def draw(self, rng: Generator, count: int) -> list[int]:
        """Return `count` lengths; tokens, from 1 to `max_tokens`."""
        drawn = rng.lognormal(np.log(self.median_tokens), self.sigma, count)
        clipped: list[int] = np.clip(np.rint(drawn), 1, self.max_tokens).astype(int).tolist()
        return clipped


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformLengths:
    """Lengths between two bounds, each as likely as the other; equal bounds make all lengths equal."""

    least_tokens: int
    most_tokens: int

    def draw(self, rng: Generator, count: int) -> list[int]:
        """Return `count` lengths; tokens, both bounds included."""
        drawn: list[int] = rng.integers(self.least_tokens, self.most_tokens + 1, size=count).tolist()
        return drawn


Lengths = TokenLengths | UniformLengths


def parse_lengths(text: str) -> Lengths:
    """Read a distribution in the words of `GRAMMAR`. Raises ConfigError."""
    if (found := _NUMBER.fullmatch(text)) is not None:
        return _uniform(text, int(found[1]), int(found[1]))
    if (found := _RANGE.fullmatch(text)) is not None:
        return _uniform(text, int(found[1]), int(found[2]))
    if (found := _LOG_NORMAL.fullmatch(text)) is not None:
        return _log_normal(text, int(found[1]), float(found[2]))
    raise ConfigError(f"{text[:60]!r} is not a distribution of lengths", fix=GRAMMAR)


def _uniform(text: str, least: int, most: int) -> UniformLengths:
    if most < least:
        raise ConfigError(f"{text!r} ends below its beginning", fix=f"Write {most}..{least}.")
    _check_bounds(text, least, most)
    return UniformLengths(least_tokens=least, most_tokens=most)


def _log_normal(text: str, median: int, sigma: float) -> TokenLengths:
    _check_bounds(text, median, median)
    if sigma > MAX_SIGMA:
        raise ConfigError(f"the sigma of {text!r} is above {MAX_SIGMA:g}", fix="Chat traffic has 0.5 to 1.2.")
    return TokenLengths(
        median_tokens=median, sigma=sigma, max_tokens=min(MAX_TOKENS, max(1, LONGEST_PER_MEDIAN * median))
    )


def _check_bounds(text: str, least: int, most: int) -> None:
    if least < 1 or most > MAX_TOKENS:
        raise ConfigError(f"{text!r} is out of range", fix=f"Lengths are 1 to {MAX_TOKENS:,} tokens.")
