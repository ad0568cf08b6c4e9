"""What `tidegate bench load` sends, and when: all of it drawn from a seed before the first request is due.

Bench: **LoadPlan → arrivals** → client → results.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from numpy.random import SeedSequence, default_rng

from tidegate.bench.client import Errand
from tidegate.bench.lengths import Lengths
from tidegate.bench.target import Target
from tidegate.bench.workload import MAX_ARRIVALS, MAX_BURSTINESS, Arrival, arrival_times, random_text
from tidegate.frontend.tokens import BYTES_PER_TOKEN
from tidegate.protocol.errors import ConfigError

MAX_PROMPT_BYTES = 2**29
"""All prompts are drawn beforehand: what they may take of the memory."""
_SOURCES = 5
"""Of chance, in a plan."""
BURSTY_VARIATION = 2.0
MAX_VARIATION = math.sqrt(MAX_BURSTINESS)

_BURSTY = re.compile(r"bursty(?::(\d{1,3}(?:\.\d{1,3})?))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """A workload. The same plan gives the same arrivals, lengths and texts."""

    seed: int
    rate_per_s: float
    """Requests that are due in a second, on average."""
    variation: float
    """Coefficient of variation of the gaps between requests: 1 is a Poisson process, above it they come in bursts."""
    requests: int | None
    """How many are counted; None: those of `duration_s`."""
    duration_s: float | None
    """For how long they are due, after the warm-up; None: until there are `requests`."""
    warm_up_s: float
    """Those due before are sent, and not counted."""
    input_tokens: Lengths
    output_tokens: Lengths
    shared_prefix_tokens: int = 0
    """Length of what the prompts of a group begin with, in front of `input_tokens`."""
    prefixes: int = 1
    """How many groups there are, all equally large."""

    def arrivals(self, *, alike: int = 1) -> list[Arrival]:
        """Return the requests by time, of which always `alike` in a row have the same lengths.

        Raises ConfigError when they are none, or too many.
        """
        # A source of chance for each: other lengths do not move the arrivals, other prefixes do not change lengths.
        times, inputs, outputs, groups, texts = map(default_rng, SeedSequence(self.seed).spawn(_SOURCES))
        at_s = self._times(arrival_times(times, self.rate_per_s, self.variation**2))
        own_tokens = _repeated(self.input_tokens.draw(inputs, len(at_s)), alike)
        max_tokens = _repeated(self.output_tokens.draw(outputs, len(at_s)), alike)
        self._check_memory(own_tokens)

        shared = [random_text(texts, self.shared_prefix_tokens) for _ in range(self.prefixes)]
        group_of = groups.integers(self.prefixes, size=len(at_s)).tolist()
        return [
            Arrival(
                at_s=at_s[i],
                prompt=shared[group_of[i]] + random_text(texts, own_tokens[i]),
                prompt_tokens=self.shared_prefix_tokens + own_tokens[i],
                max_tokens=max_tokens[i],
                prefix_group=group_of[i] if self.shared_prefix_tokens else None,
            )
            for i in range(len(at_s))
        ]

    def _times(self, all_times: Iterator[float]) -> list[float]:
        """Return when requests are due, those of the warm-up first."""
        expected = self.rate_per_s * (self.warm_up_s + (self.duration_s or 0.0)) + (self.requests or 0)
        if expected > MAX_ARRIVALS:
            raise ConfigError(
                f"these are about {expected:,.0f} requests, and {MAX_ARRIVALS:,} is the most",
                fix="Shorten the run or lower the rate.",
            )
        end = float("inf") if self.duration_s is None else self.warm_up_s + self.duration_s
        times: list[float] = []
        counted = 0
        for at in all_times:
            if at >= end or counted == self.requests:
                break
            times.append(at)
            counted += at >= self.warm_up_s
        if not counted:
            raise ConfigError(
                f"no request is due in {self.duration_s:g} s at {self.rate_per_s:g} requests/s",
                fix="Lengthen the run, raise the rate, or try another --seed.",
            )
        return times

    def _check_memory(self, own_tokens: list[int]) -> None:
        wanted = BYTES_PER_TOKEN * (sum(own_tokens) + self.shared_prefix_tokens * (len(own_tokens) + self.prefixes))
        if wanted > MAX_PROMPT_BYTES:
            raise ConfigError(
                f"the prompts of {len(own_tokens):,} requests are {wanted / 2**20:,.0f} MiB, "
                f"and {MAX_PROMPT_BYTES >> 20} MiB is the most",
                fix="Shorten the run or the prompts.",
            )


def plan_errands(plan: LoadPlan, targets: Sequence[Target]) -> list[Errand]:
    """Return the requests of the plan, dealt to one or two targets. Raises ConfigError.

    Of every two requests in a row, a pair, each target gets one, and chance decides which. They are equally long and
    differ in text. So both targets meet the same server, machine and hour, neither is always the first, and neither
    finds in a cache what the other has left there.
    """
    arrivals = plan.arrivals(alike=len(targets))
    if len(targets) == 1:
        return [Errand(targets[0], arrival) for arrival in arrivals]
    coins = default_rng(SeedSequence(plan.seed, spawn_key=(_SOURCES,)))
    first = coins.integers(2, size=len(arrivals) // 2 + 1).tolist()
    return [Errand(targets[(i + first[i // 2]) % 2], arrival) for i, arrival in enumerate(arrivals)]


def _repeated(lengths: list[int], times: int) -> list[int]:
    return [lengths[i - i % times] for i in range(len(lengths))]


def parse_variation(text: str) -> float:
    """Return the coefficient of variation of `poisson`, `bursty` or `bursty:CV`. Raises ConfigError."""
    if text == "poisson":
        return 1.0
    if (found := _BURSTY.fullmatch(text)) is None:
        raise ConfigError(f"{text[:60]!r} is no kind of arrivals", fix="Use poisson, bursty or bursty:3.")
    variation = float(found[1]) if found[1] else BURSTY_VARIATION
    if not 1 <= variation <= MAX_VARIATION:
        fix = f"From 1 (poisson) to {MAX_VARIATION:g}; bursty alone is {BURSTY_VARIATION:g}."
        raise ConfigError(f"a coefficient of variation of {variation:g} is out of range", fix=fix)
    return variation
