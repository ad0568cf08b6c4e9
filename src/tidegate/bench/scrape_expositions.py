"""What `bench scrape` reads: real expositions that come with the package, and a large one made from them."""

import gzip
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

from tidegate.protocol.engines import EngineMapping, engine_named

LARGE_BYTES = 1_000_000
"""Least size of the large exposition."""

_ENGINE = b'engine="0"'
_COMPOSITES = re.compile(rb'^.*\{.*(?:request_type="waiting"|kv_cache_block_type="fraction").*\n', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Exposition:
    """One exposition, as a server sends it."""

    name: str
    """What tables call it, its size apart."""
    slug: str
    """What files and paths call it."""
    engine: EngineMapping
    body: bytes

    @property
    def title(self) -> str:
        """Name with size."""
        kilobytes = len(self.body) / 1000
        return f"{self.name} {kilobytes:.0f} kB" if kilobytes < 1000 else f"{self.name} {kilobytes / 1000:.1f} MB"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expositions:
    """All that are measured."""

    triton: Exposition
    triton_ingredients: Exposition
    """The same without the composite series, as servers without them write it: what an exporter is for."""
    vllm: Exposition
    vllm_ranks: Exposition
    """Of two data-parallel engines; the largest that was captured."""
    large: Exposition
    """Made: what vLLM would write of enough engines for LARGE_BYTES."""

    def parsed(self) -> Sequence[Exposition]:
        """Return those of different sizes, the smallest first."""
        return (self.triton, self.vllm, self.vllm_ranks, self.large)

    def __iter__(self) -> Iterator[Exposition]:
        return iter((*self.parsed(), self.triton_ingredients))


def load_expositions() -> Expositions:
    """Return the expositions; the same bytes each time."""
    triton, vllm = engine_named("triton-tensorrt-llm"), engine_named("vllm")
    triton_body, vllm_body = _read("triton-tensorrt-llm"), _read("vllm-one-engine")
    large = repeat_engine(vllm_body, at_least_bytes=LARGE_BYTES)
    return Expositions(
        triton=Exposition("Triton", "triton-tensorrt-llm", triton, triton_body),
        triton_ingredients=Exposition(
            "Triton (no composites)", "triton-ingredients", triton, _COMPOSITES.sub(b"", triton_body)
        ),
        vllm=Exposition("vLLM", "vllm-one-engine", vllm, vllm_body),
        vllm_ranks=Exposition("vLLM", "vllm-two-engines", vllm, _read("vllm-two-engines")),
        large=Exposition("vLLM (made)", "vllm-many-engines", vllm, large),
    )


def repeat_engine(exposition: bytes, *, at_least_bytes: int) -> bytes:
    """Return a vLLM's exposition as of as many engines as it takes: each series of engine 0 again for 1, 2, …"""
    once = sum(len(line) for line in exposition.splitlines(keepends=True) if _ENGINE in line)
    engines = 1 + max(0, -(-(at_least_bytes - len(exposition)) // once))
    families = re.split(rb"^(?=# HELP )", exposition, flags=re.MULTILINE)
    return b"".join(_repeat_family(family, engines) for family in families)


def _repeat_family(family: bytes, engines: int) -> bytes:
    lines = family.splitlines(keepends=True)
    others = b"".join(line for line in lines if _ENGINE not in line)  # the comments, which come first
    of_engine = b"".join(line for line in lines if _ENGINE in line)
    return others + b"".join(of_engine.replace(_ENGINE, b'engine="%d"' % number) for number in range(engines))


def _read(slug: str) -> bytes:
    return gzip.decompress((resources.files("tidegate.bench") / "expositions" / f"{slug}.prom.gz").read_bytes())
