"""What `bench scrape` reads: real bytes, and what is made from them."""

from collections import Counter
from pathlib import Path

import pytest

from tidegate.bench.scrape_costs import read_with_prometheus_client
from tidegate.bench.scrape_expositions import LARGE_BYTES, Expositions, load_expositions, repeat_engine
from tidegate.protocol.exposition import scan
from tidegate.protocol.load import parse_signals
from tidegate.scrape.http import MAX_BODY_BYTES

FIXTURES = Path(__file__).parent.parent / "fixtures" / "metrics"
ENGINE = """\
# HELP vllm:num_requests_waiting Waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
# HELP python_info Python.
# TYPE python_info gauge
python_info{version="3"} 1.0
"""


@pytest.fixture(scope="module")
def expositions() -> Expositions:
    return load_expositions()


@pytest.mark.parametrize(
    ("name", "captured"),
    [("triton", "triton/loaded.txt"), ("vllm", "vllm/loaded.txt"), ("vllm_ranks", "vllm/dp2_loaded.txt")],
)
def test_the_real_ones_are_what_was_captured_byte_for_byte(name: str, captured: str, expositions: Expositions) -> None:
    assert getattr(expositions, name).body == (FIXTURES / captured).read_bytes()


def test_an_engine_is_repeated_with_all_of_its_series_and_nothing_else() -> None:
    one = len(b'vllm:num_requests_waiting{engine="0",model_name="m"} 3.0\n')

    repeated = repeat_engine(ENGINE.encode(), at_least_bytes=len(ENGINE) + 2 * one).decode()

    assert (
        repeated
        == """\
# HELP vllm:num_requests_waiting Waiting.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="1",model_name="m"} 3.0
vllm:num_requests_waiting{engine="2",model_name="m"} 3.0
# HELP python_info Python.
# TYPE python_info gauge
python_info{version="3"} 1.0
"""
    )


def test_what_is_large_enough_already_stays_as_it_is() -> None:
    assert repeat_engine(ENGINE.encode(), at_least_bytes=len(ENGINE)) == ENGINE.encode()


def test_the_large_one_is_an_exposition_of_many_engines(expositions: Expositions) -> None:
    one, large = expositions.vllm, expositions.large
    engines = Counter(sample.labels["engine"] for sample in scan(large.body, {"vllm:num_requests_waiting"}))

    samples = read_with_prometheus_client(large.body, large.engine.families)

    assert LARGE_BYTES <= len(large.body) < MAX_BODY_BYTES
    assert set(engines.values()) == {1}
    assert len({(sample.family, *sorted(sample.labels.items())) for sample in samples}) == len(samples)
    of_one = parse_signals(one.body, one.engine, observed_at=0.0)
    of_many = parse_signals(large.body, large.engine, observed_at=0.0)
    assert of_many.queued_requests == (of_one.queued_requests or 0) * len(engines)


def test_without_its_composites_triton_says_the_same(expositions: Expositions) -> None:
    whole, ingredients = expositions.triton, expositions.triton_ingredients

    assert b'"waiting"' not in ingredients.body
    assert b'"fraction"' not in ingredients.body
    assert len(whole.body.splitlines()) - len(ingredients.body.splitlines()) == 2
    assert parse_signals(ingredients.body, ingredients.engine, observed_at=0.0) == parse_signals(
        whole.body, whole.engine, observed_at=0.0
    )


def test_names_tell_the_sizes(expositions: Expositions) -> None:
    assert [exposition.title for exposition in expositions.parsed()] == [
        "Triton 7 kB",
        "vLLM 50 kB",
        "vLLM 84 kB",
        "vLLM (made) 1.0 MB",
    ]
