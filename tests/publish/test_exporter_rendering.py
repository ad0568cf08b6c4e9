"""A server's load in the names of any engine, and what the exporter says of itself."""

import dataclasses
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tidegate.protocol.engines import ENGINES, detect_engine
from tidegate.protocol.load import parse_signals
from tidegate.publish.exporter.fetches import Fetched
from tidegate.publish.exporter.rendering import join, only, render_load, render_status
from tidegate.scrape.probe import Scrape

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
LOADED = ("vllm/loaded.txt", "vllm/dp2_loaded.txt", "triton/two_models_summaries_loaded.txt", "llamacpp/loaded.txt")
TARGETS = ("vllm", "sglang", "trtllm-serve", "triton-tensorrt-llm")


def scrape_of(name: str) -> Scrape:
    exposition = (FIXTURES / name).read_bytes()
    engine = detect_engine(exposition)
    assert engine is not None
    signals = parse_signals(exposition, engine, observed_at=7.0)
    return Scrape(signals, 6.9, engine, exposition, "text/plain")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LOADED)
def test_whoever_reads_it_as_the_other_engine_finds_the_same_load(name: str, target: str) -> None:
    scrape = scrape_of(name)

    published = render_load(scrape, ENGINES[target], wall_time=1.7e9)

    read = parse_signals(published, ENGINES[target], observed_at=7.0)
    assert read == dataclasses.replace(scrape.signals, lora=read.lora)
    assert detect_engine(published) is ENGINES[target]


def test_the_lora_adapters_of_a_vllm_are_published_with_the_time() -> None:
    scrape = scrape_of("vllm/lora_loaded.txt")

    published = render_load(scrape, ENGINES["vllm"], wall_time=1.7e9)

    assert b"vllm:lora_requests_info" in published
    assert parse_signals(published, ENGINES["vllm"], observed_at=7.0) == scrape.signals


def test_the_names_of_several_models_are_all_there() -> None:
    published = render_load(scrape_of("triton/two_models_summaries_loaded.txt"), ENGINES["vllm"], wall_time=0)

    [waiting] = [line for line in published.splitlines() if line.startswith(b"vllm:num_requests_waiting{")]
    assert sorted(waiting.split(b'"')[1].split(b",")) == [b"llama_b", b"tensorrt_llm"]


def test_of_its_own_it_says_that_the_server_is_up_and_how_old_its_word_is() -> None:
    fetched = Fetched(scrape_of("vllm/idle.txt"), None, took_s=0.02, ended_at=7.0)

    status = render_status(fetched, {"ok": 3, "timeout": 1}, now=7.5)

    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(status.decode())
        for sample in family.samples
    }
    assert values == {
        ("tidegate_exporter_up",): 1,
        ("tidegate_exporter_scrape_seconds",): 0.02,
        ("tidegate_exporter_age_seconds",): 0.5,
        ("tidegate_exporter_scrapes_total", "ok"): 3,
        ("tidegate_exporter_scrapes_total", "timeout"): 1,
    }


def test_behind_openmetrics_they_are_openmetrics_too() -> None:
    status = render_status(Fetched(scrape_of("vllm/idle.txt"), None, took_s=0.02, ended_at=7.0), {"ok": 3}, now=7.5)

    families = list(parse_openmetrics(join(b"# TYPE a gauge\na 1\n# EOF\n", status).decode()))

    assert ("tidegate_exporter_scrapes", "counter") in [(family.name, family.type) for family in families]


def test_a_filter_keeps_a_carriage_return_in_a_label() -> None:
    assert only(b'# TYPE a gauge\na{x="1\r2"} 1\nb 2\n', ["a"]) == b'# TYPE a gauge\na{x="1\r2"} 1\n'


def test_a_filter_leaves_whole_families_of_exactly_these_names() -> None:
    text = b'# HELP a A.\n# TYPE a gauge\na{x="b "} 1\na 2\n# TYPE ab gauge\nab 3\n# TYPE b gauge\nb 4\n'

    assert only(text, ["a", "b"]) == b'# HELP a A.\n# TYPE a gauge\na{x="b "} 1\na 2\n# TYPE b gauge\nb 4\n'
    assert only(text, ["c"]) == b""


@pytest.mark.parametrize(
    ("first", "joined"),
    [
        (b"a 1\n", b"a 1\nb 2\n"),
        (b"a 1", b"a 1\nb 2\n"),
        (b"", b"b 2\n"),
        (b"a 1\n# EOF\n", b"a 1\nb 2\n# EOF\n"),
        (b"# EOF\n", b"b 2\n# EOF\n"),
        (b"a 1\n# EOF", b"a 1\nb 2\n# EOF\n"),
        (b"# HELP a Not the end: # EOF\na 1\n", b"# HELP a Not the end: # EOF\na 1\nb 2\n"),
        (b"# HELP a # EOF\n", b"# HELP a # EOF\nb 2\n"),
    ],
)
def test_two_expositions_make_one(first: bytes, joined: bytes) -> None:
    assert join(first, b"b 2\n") == joined
