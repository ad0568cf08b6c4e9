"""What an answer must keep to be a good one.

Bench: results → **slo** → goodput.
"""

import re
from dataclasses import dataclass

from tidegate.bench.results import RequestResult
from tidegate.protocol.errors import ConfigError

GRAMMAR = "Use ttft, tpot and e2e with seconds: ttft=0.5,tpot=0.05."

_LIMIT = re.compile(r"(ttft|tpot|e2e)=(\d{1,6}(?:\.\d{1,9})?)", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """A service-level objective of single requests; seconds, None: no limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def is_kept(self, result: RequestResult) -> bool:
        """Return whether a request succeeded and kept every limit."""
        if result.error is not None:
            return False
        # An answer without text has no first token, and one of a single token no time per further token.
        ttft_s = float("inf") if result.ttft_s is None else result.ttft_s
        kept = ((self.ttft_s, ttft_s), (self.tpot_s, result.tpot_s or 0.0), (self.e2e_s, result.e2e_s))
        return all(limit is None or value <= limit for limit, value in kept)

    def __str__(self) -> str:
        limits = (("ttft", self.ttft_s), ("tpot", self.tpot_s), ("e2e", self.e2e_s))
        return ", ".join(f"{name} <= {limit:g} s" for name, limit in limits if limit is not None)


def parse_slo(text: str) -> Slo:
    """Read limits in the words of `GRAMMAR`. Raises ConfigError."""
    limits: dict[str, float] = {}
    for part in text.split(","):
        if (found := _LIMIT.fullmatch(part.strip())) is None:
            raise ConfigError(f"{part[:60]!r} is not a limit", fix=GRAMMAR)
        if found[1] in limits:
            raise ConfigError(f"{found[1]} is there twice", fix=GRAMMAR)
        limits[found[1]] = float(found[2])
    return Slo(ttft_s=limits.get("ttft"), tpot_s=limits.get("tpot"), e2e_s=limits.get("e2e"))
