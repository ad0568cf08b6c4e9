"""The targets of `make fuzz`, on inputs that hypothesis makes of real ones."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from targets import TARGETS, check_time

from verdicts import EXPOSITIONS

Target = Callable[[bytes], None]

SEEDS = [path.read_bytes() for path in EXPOSITIONS if path.stem in ("lora_loaded", "two_models_summaries_loaded")]
ROW = {
    "iter": 3,
    "timestamp": "11-24-2026 07:17:35.123456",
    "numActiveRequests": 9,
    "numQueuedRequests": 7,
    "attentionDpRank": 1,
    "kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": 40, "freeNumBlocks": 60, "tokensPerBlock": 64},
    "inflightBatchingStats": {"numScheduledRequests": 4},
    "Waiting Requests": 3,
}
STATISTICS = json.dumps([ROW, ROW]).encode()
ORCA = b'JSON {"named_metrics": {"num_requests_waiting": 9.0}}'
JUNK = (b"", b"NaN", b"-1", b"1e400", b'"', b"\\", b"{", b"}", b"\n", b"\r", b"# ", b"\xff", b"null", b"9" * 400, b" ")


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A few lines of a real input, with parts cut out and junk put in."""
    data = draw(st.sampled_from(seeds))
    start = draw(st.integers(0, len(data)))
    data = data[start : start + draw(st.integers(1, 2000))]
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from(JUNK)) + data[at + draw(st.integers(0, 9)) :]
    return data


@pytest.mark.parametrize("name", ["signals", "readers", "rules"])
@given(data=mutated(SEEDS) | st.binary(max_size=200))
def test_expositions_do_nothing_that_was_not_declared(name: str, data: bytes) -> None:
    TARGETS[name](data)


@given(mutated([STATISTICS]) | st.binary(max_size=200))
def test_statistics_do_nothing_that_was_not_declared(data: bytes) -> None:
    TARGETS["statistics"](data)


@given(mutated([ORCA]) | st.binary(max_size=200))
def test_load_headers_do_nothing_that_was_not_declared(data: bytes) -> None:
    TARGETS["orca"](data)


@pytest.mark.parametrize("path", EXPOSITIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_real_expositions_pass_every_target(path: Path) -> None:
    for name in ("signals", "readers", "rules"):
        TARGETS[name](path.read_bytes())


HOSTILE = (
    *JUNK[1:],
    *SEEDS,
    STATISTICS,
    ORCA,
    b'vllm:x{a="',
    b"nv_trt_llm_request_metrics{",
    b"[[",
    b'{"a":',
    b"a 1 #",
)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_a_megabyte_of_anything_takes_no_more_than_linear_time(target: Target) -> None:
    for data in HOSTILE:
        check_time(target, data)
