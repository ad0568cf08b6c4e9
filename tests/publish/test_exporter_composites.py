"""A server's own exposition stays as it is, and gets the composites that its ingredients give."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from tidegate.protocol.engines import ENGINES, detect_engine
from tidegate.protocol.load import parse_signals
from tidegate.publish.exporter.composites import add_composites

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
EXPOSITIONS = sorted(
    f"{file.parent.name}/{file.name}" for file in FIXTURES.glob("*/*.txt") if not file.name.endswith(".headers.txt")
)
TRITON = ENGINES["triton-tensorrt-llm"]

OLD_TRITON = b"""\
# HELP nv_trt_llm_request_metrics TRT LLM request metrics
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="m",request_type="active",version="1"} 7
nv_trt_llm_request_metrics{model="m",request_type="scheduled",version="1"} 4
nv_trt_llm_request_metrics{model="n",request_type="active",version="1"} 2
nv_trt_llm_request_metrics{model="n",request_type="scheduled",version="1"} 2
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="m",version="1"} 24
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 96
# TYPE other gauge
other 1"""


def added(exposition: bytes) -> list[str]:
    """Return the lines that are new; everything else must be where it was."""
    before, after = exposition.decode().splitlines(), add_composites(exposition, TRITON).decode().splitlines()
    rest = iter(before)
    expected, new = next(rest, None), []
    for line in after:
        if line == expected:
            expected = next(rest, None)
        else:
            new.append(line)
    assert expected is None, "a line is missing, or elsewhere"
    return new


def test_each_pair_of_ingredients_gives_a_composite_with_their_other_labels() -> None:
    assert added(OLD_TRITON) == [
        'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 3',
        'nv_trt_llm_request_metrics{model="n",request_type="waiting",version="1"} 0',
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.25',
    ]


def test_the_series_of_a_family_stay_together() -> None:
    families = list(text_string_to_metric_families(add_composites(OLD_TRITON, TRITON).decode()))

    assert [family.name for family in families] == [
        "nv_trt_llm_request_metrics",
        "nv_trt_llm_kv_cache_block_metrics",
        "other",
    ]
    assert [len(family.samples) for family in families] == [6, 3, 1]


def test_at_the_end_of_a_text_without_a_last_newline_it_begins_a_line() -> None:
    text = OLD_TRITON.replace(b"\n# TYPE other gauge\nother 1", b"")

    assert add_composites(text, TRITON).decode().splitlines()[-2:] == [
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="m",version="1"} 96',
        'nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="m",version="1"} 0.25',
    ]


def test_only_the_model_that_lacks_it_gets_one() -> None:
    text = b'nv_trt_llm_request_metrics{model="m",request_type="waiting",version="1"} 99\n' + OLD_TRITON

    assert [line for line in added(text) if "waiting" in line] == [
        'nv_trt_llm_request_metrics{model="n",request_type="waiting",version="1"} 0'
    ]


def test_an_ingredient_that_occurs_twice_gives_one_composite() -> None:
    active = b'nv_trt_llm_request_metrics{model="m",request_type="active",version="1"} 7\n'

    assert len([line for line in added(active + OLD_TRITON) if "waiting" in line]) == 2


@pytest.mark.parametrize("missing", ['request_type="scheduled"', 'kv_cache_block_type="max"'])
def test_without_an_ingredient_there_is_no_composite(missing: str) -> None:
    text = "\n".join(line for line in OLD_TRITON.decode().splitlines() if missing not in line)
    composite = "waiting" if "request" in missing else "fraction"

    assert not [line for line in added(text.encode()) if composite in line]


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_a_server_that_publishes_them_is_passed_on_byte_for_byte(name: str) -> None:
    exposition = (FIXTURES / name).read_bytes()
    engine = detect_engine(exposition)
    assert engine is not None

    assert add_composites(exposition, engine) == exposition


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_the_load_read_from_it_is_the_load_read_from_the_ingredients(
    active: int, scheduled: int, used: int, maximum: int
) -> None:
    text = (
        f'nv_trt_llm_request_metrics{{request_type="active"}} {active}\n'
        f'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="used"}} {used}\n'
        f'nv_trt_llm_request_metrics{{request_type="scheduled"}} {scheduled}\n'
        f'nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="max"}} {maximum}\n'
    ).encode()

    completed = add_composites(text, TRITON)

    assert b'request_type="waiting"' in completed
    assert parse_signals(completed, TRITON, observed_at=0) == parse_signals(text, TRITON, observed_at=0)
