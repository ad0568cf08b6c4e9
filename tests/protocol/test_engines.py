"""Engine mappings: told apart by their expositions, found by their names, readable in both directions."""

import pytest

from tidegate.protocol.engines import ENGINES, EngineMapping, SeriesLabel, SeriesValue, detect_engine, engine_named
from tidegate.protocol.errors import ConfigError, ScrapeError
from tidegate.protocol.exposition import MAX_LINES
from tidegate.protocol.selectors import parse_selector


@pytest.mark.parametrize(
    ("exposition", "name"),
    [
        ("# TYPE vllm:num_requests_waiting gauge\n", "vllm"),
        ("# HELP sglang:num_queue_reqs The queue\n", "sglang"),
        ('trtllm_num_requests_waiting{model_name="m"} 0', "trtllm-serve"),
        ("nv_inference_pending_request_count 0", "triton"),
        ("\ttgi_queue_size 0", "tgi"),
        ("llamacpp:requests_deferred 0", "llamacpp"),
    ],
)
def test_one_line_is_enough_to_tell_an_engine(exposition: str, name: str) -> None:
    engine = detect_engine(b"process_x 1\n" + exposition.encode())

    assert engine is ENGINES[name]


@pytest.mark.parametrize("backend", ["nv_trt_llm_request_metrics 0\n", "# TYPE nv_trt_llm_request_metrics gauge\n"])
def test_the_tensorrt_llm_backend_wins_over_its_triton(backend: str) -> None:
    assert detect_engine(f"nv_inference_count 0\n{backend}".encode()) is ENGINES["triton-tensorrt-llm"]


def test_a_triton_whose_backend_publishes_vllm_families_is_a_triton() -> None:
    assert detect_engine(b"vllm:prompt_tokens_total 0\nnv_inference_count 0\n") is ENGINES["triton"]


@pytest.mark.parametrize(
    "exposition",
    [b"", b"process_cpu_seconds_total 1\n", b"# vllm: is not here\n", b"x 1 vllm:a 2", b'x{a="vllm:a"} 1'],
)
def test_an_engine_is_not_seen_where_it_is_only_spoken_of(exposition: bytes) -> None:
    assert detect_engine(exposition) is None


@pytest.mark.parametrize("reverse", [False, True])
def test_of_several_engines_the_first_in_their_order_is_seen_wherever_it_is(reverse: bool) -> None:
    engines = list(ENGINES.values())
    for number, first in enumerate(engines):
        lines = [f"{engine.prefix}x 1\n".encode() for engine in engines[number:]]

        assert detect_engine(b"".join(reversed(lines) if reverse else lines)) is first


def test_an_exposition_of_too_many_lines_is_refused_without_looking_for_engines() -> None:
    with pytest.raises(ScrapeError, match=f"more than {MAX_LINES} lines"):
        detect_engine(b"\n" * MAX_LINES + b"\nvllm:x 1")


def test_engines_are_found_by_name() -> None:
    assert all(engine_named(name) is engine for name, engine in ENGINES.items())


def test_an_unknown_engine_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"no engine called 'triton-trtllm'. Did you mean triton-tensorrt-llm"
    ) as caught:
        engine_named("triton-trtllm")
    assert "Use one of: triton-tensorrt-llm, triton, vllm" in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_the_first_source_of_every_signal_can_be_written_as_well_as_read(engine: object) -> None:
    for signal in ("queued_requests", "running_requests", "kv_utilization", "block_size", "num_blocks"):
        sources = getattr(engine, signal)
        assert not sources or isinstance(sources[0], SeriesValue | SeriesLabel)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_what_counts_finished_requests_is_no_signal(engine: EngineMapping) -> None:
    assert engine.completions
    assert not engine.families & {selector.family for selector in engine.completions}


def test_the_names_are_those_of_the_model_server_protocol() -> None:
    trt_llm = ENGINES["triton-tensorrt-llm"]

    assert trt_llm.queued_requests[0] == SeriesValue(parse_selector("nv_trt_llm_request_metrics{request_type=waiting}"))
    assert trt_llm.families == {"nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"}
    assert SeriesLabel(parse_selector("vllm:cache_config_info"), "block_size") in ENGINES["vllm"].block_size
