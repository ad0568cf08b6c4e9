"""What expositions say of the load of their servers: real ones, and what servers get wrong."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.engines import ENGINES, EngineMapping, detect_engine
from tidegate.protocol.errors import ScrapeError
from tidegate.protocol.load import parse_load, parse_signals
from tidegate.protocol.signals import LoadSignals, LoraSignals

FIXTURES = Path(__file__).parents[1] / "fixtures" / "metrics"
GOLDEN = sorted(path for path in FIXTURES.glob("*/*.json") if not path.name.endswith(".verdict.json"))
VLLM = ENGINES["vllm"]
TRT_LLM = ENGINES["triton-tensorrt-llm"]


def load_of(exposition: str, engine: EngineMapping = VLLM) -> LoadSignals:
    return parse_signals(exposition.encode(), engine, observed_at=0.0)


def without_lines(path: str, *parts: str) -> str:
    """A real exposition as a server that lacks some of the series would write it."""
    lines = (FIXTURES / path).read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not any(part in line for part in parts))


def test_every_real_exposition_has_its_golden_file() -> None:
    expositions = {path.with_suffix("") for path in FIXTURES.glob("*/*.txt") if ".headers" not in path.name}

    assert expositions == {path.with_suffix("") for path in GOLDEN}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_real_exposition_gives_the_signals_that_its_server_had(path: Path) -> None:
    exposition = path.with_suffix(".txt").read_bytes()
    golden = json.loads(path.read_text())
    engine = detect_engine(exposition)
    assert engine is not None
    assert engine.name == golden.pop("engine")

    signals = parse_signals(exposition, engine, observed_at=17.5)

    if golden["lora"] is not None:
        golden["lora"] = LoraSignals(
            running=frozenset(golden["lora"]["running"]),
            waiting=frozenset(golden["lora"]["waiting"]),
            max_adapters=golden["lora"]["max_adapters"],
        )
    assert signals == LoadSignals(**golden, observed_at=17.5)


def test_the_queue_of_ordinary_triton_models_is_summed() -> None:
    exposition = (FIXTURES / "triton/classifier_loaded.txt").read_bytes()

    signals = parse_signals(exposition, ENGINES["triton"], observed_at=0.0)

    assert signals == LoadSignals(queued_requests=4, observed_at=0.0)


def test_instances_of_a_model_have_a_kv_cache_each() -> None:
    requests, blocks = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
    lines = [
        f'{family}{{instance="0_{instance}",{label},model="m",version="1"}} {value}'
        for instance, figures in enumerate([(2, 5, 0.25, 100), (3, 0, 0.75, 100)])
        for (family, label), value in zip(
            [
                (requests, 'request_type="scheduled"'),
                (requests, 'request_type="waiting"'),
                (blocks, 'kv_cache_block_type="fraction"'),
                (blocks, 'kv_cache_block_type="max"'),
            ],
            figures,
            strict=True,
        )
    ]

    signals = load_of("\n".join([*lines, ""]), TRT_LLM)

    assert (signals.running_requests, signals.queued_requests) == (5, 5)
    assert (signals.kv_utilization, signals.num_blocks) == (0.75, 200)


def test_composites_are_computed_where_the_server_publishes_only_the_ingredients() -> None:
    exposition = without_lines("triton/two_models_summaries_loaded.txt", '="waiting"', '="fraction"')

    signals = load_of(exposition, TRT_LLM)

    assert signals.queued_requests == 4
    assert signals.running_requests == 6
    assert signals.kv_utilization == pytest.approx(0.3)


def test_composites_pair_ingredients_of_the_same_model() -> None:
    family = "nv_trt_llm_request_metrics"
    exposition = (
        f'{family}{{model="a",request_type="active"}} 9\n{family}{{model="b",request_type="scheduled"}} 4\n'
        f'{family}{{model="b",request_type="active"}} 1\n{family}{{model="a",request_type="scheduled"}} 4\n'
    )

    # Model b was read between two iterations: its surplus must not hide what waits for model a.
    assert load_of(exposition, TRT_LLM).queued_requests == 5


def test_a_composite_that_lacks_an_ingredient_is_unknown() -> None:
    exposition = without_lines("triton/loaded.txt", '="waiting"', '="scheduled"', '="fraction"', '="max"')

    signals = load_of(exposition, TRT_LLM)

    assert (signals.queued_requests, signals.running_requests, signals.kv_utilization) == (None, None, None)


def test_a_native_series_that_says_nothing_leaves_the_word_to_the_composite() -> None:
    exposition = (FIXTURES / "triton/loaded.txt").read_text().replace('"waiting",version="1"} 4', '"waiting"} Nan')

    assert load_of(exposition, TRT_LLM).queued_requests == 4


@pytest.mark.parametrize(
    ("engine", "exposition", "expected"),
    [
        ("vllm", "vllm:gpu_cache_usage_perc 0.5\n", {"kv_utilization": 0.5}),
        ("vllm", "vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.5\n", {"kv_utilization": 0.5}),
        (
            "sglang",
            (
                'sglang:num_queue_reqs{model_name="m"} 3\nsglang:num_running_reqs{model_name="m"} 2\n'
                "sglang:token_usage 0.28\nsglang:page_size 16.0\nsglang:num_pages 4096.0\n"
            ),
            {"queued_requests": 3, "running_requests": 2, "kv_utilization": 0.28, "block_size": 16, "num_blocks": 4096},
        ),
        (
            "sglang",
            'sglang:cache_config_info{page_size="64",num_pages="512"} 1\n',
            {"block_size": 64, "num_blocks": 512},
        ),
        (
            "trtllm-serve",
            (
                "trtllm_num_requests_waiting 7\ntrtllm_num_requests_running 1\ntrtllm_kv_cache_utilization 0.75\n"
                "trtllm_kv_cache_tokens_per_block 64\ntrtllm_kv_cache_max_blocks 7240\n"
            ),
            {"queued_requests": 7, "running_requests": 1, "kv_utilization": 0.75, "block_size": 64, "num_blocks": 7240},
        ),
        ("llamacpp", "llamacpp:kv_cache_usage_ratio 0.25\n", {"kv_utilization": 0.25}),
        ("tgi", "tgi_queue_size 5\ntgi_batch_current_size 8\n", {"queued_requests": 5, "running_requests": 8}),
    ],
)
def test_engines_and_versions_without_a_fixture_are_read_by_their_names(
    engine: str, exposition: str, expected: dict[str, float]
) -> None:
    assert load_of(exposition, ENGINES[engine]) == LoadSignals(**expected, observed_at=0.0)  # type: ignore[arg-type]


def test_a_signal_comes_with_the_source_that_gave_it_and_what_each_series_says() -> None:
    exposition = without_lines("triton/two_models_summaries_loaded.txt", '="waiting"')

    load = parse_load(exposition.encode(), TRT_LLM, observed_at=0.0)

    assert load.signals == load_of(exposition, TRT_LLM)
    waiting, utilization = load.origins["queued_requests"], load.origins["kv_utilization"]
    assert (waiting.source, utilization.source) == (TRT_LLM.queued_requests[1], TRT_LLM.kv_utilization[0])
    values = {reading.labels["model"]: reading.value for reading in waiting.readings}
    assert values == {"tensorrt_llm": 1, "llama_b": 3}
    assert "lora" not in load.origins


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "-1", "2.5", "1e300"])
def test_a_count_that_cannot_be_meant_is_unknown(value: str) -> None:
    assert load_of(f"vllm:num_requests_waiting {value}").queued_requests is None


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    exposition = 'vllm:num_requests_waiting{engine="0"} 3\nvllm:num_requests_waiting{engine="1"} NaN\n'

    assert load_of(exposition).queued_requests is None


@pytest.mark.parametrize(
    ("value", "expected"), [("1.02", 1.0), ("-0.01", 0.0), ("45", 1.0), ("NaN", None), ("+Inf", None)]
)
def test_utilization_is_clamped_and_never_taken_for_percent(value: str, expected: float | None) -> None:
    assert load_of(f"vllm:kv_cache_usage_perc {value}").kv_utilization == expected


def test_the_fullest_rank_gives_the_utilization() -> None:
    exposition = "".join(
        f'vllm:kv_cache_usage_perc{{engine="{engine}"}} {value}\n' for engine, value in enumerate([0.2, 0.7, "NaN"])
    )

    assert load_of(exposition).kv_utilization == 0.7


def test_labels_that_are_no_counts_are_unknown() -> None:
    signals = load_of('vllm:cache_config_info{block_size="None",num_gpu_blocks="-3"} 1')

    assert (signals.block_size, signals.num_blocks) == (None, None)


def test_the_smallest_block_of_all_models_counts() -> None:
    family = "nv_trt_llm_kv_cache_block_metrics"
    sizes = {"a": 64, "b": 32, "c": 0}
    exposition = "".join(f'{family}{{kv_cache_block_type="tokens_per",model="{m}"}} {n}\n' for m, n in sizes.items())

    assert load_of(exposition, TRT_LLM).block_size == 32


def test_lora_names_come_from_the_newest_series() -> None:
    family = "vllm:lora_requests_info"
    exposition = (
        f'{family}{{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""}} 1.7e9\n'
        f'{family}{{max_lora="4",running_lora_adapters="a, b,",waiting_lora_adapters="c"}} 1.8e9\n'
        f'{family}{{max_lora="4",running_lora_adapters="broken",waiting_lora_adapters=""}} NaN\n'
    )

    lora = load_of(exposition).lora

    assert lora == LoraSignals(running=frozenset({"a", "b"}), waiting=frozenset({"c"}), max_adapters=4)


def test_a_lora_family_without_samples_says_nothing() -> None:
    assert load_of("# TYPE vllm:lora_requests_info gauge\n").lora is None


@pytest.mark.parametrize(
    "exposition",
    [b"", b"\x00\xff", b"<html>\n<p>vllm: 404</p>\n", b'[{"iter": 1}]', b"# vllm:\n", b"process_cpu_seconds_total 1\n"],
)
def test_bytes_without_anything_of_the_engine_are_an_error(exposition: bytes) -> None:
    with pytest.raises(ScrapeError, match="engine vllm"):
        parse_signals(exposition, VLLM, observed_at=0.0)


values = st.sampled_from(["0", "1.0", "NaN", "-5", "+Inf", "1e400", "x", ""])
lines = st.builds(
    "{}{} {}".format,
    st.sampled_from(sorted(family for engine in ENGINES.values() for family in engine.families)),
    st.sampled_from(["", "{}", '{request_type="active"}', '{block_size="9"}', '{running_lora_adapters=","}', "{"]),
    values,
)


@given(st.lists(lines).map("\n".join), st.sampled_from(list(ENGINES.values())))
def test_whatever_a_server_writes_gives_valid_signals_or_a_scrape_error(text: str, engine: EngineMapping) -> None:
    try:
        signals = load_of(text, engine)
    except ScrapeError:
        return
    for count in (signals.queued_requests, signals.running_requests, signals.num_blocks):
        assert count is None or count >= 0
    assert signals.block_size is None or signals.block_size > 0
    assert signals.kv_utilization is None or 0.0 <= signals.kv_utilization <= 1.0
