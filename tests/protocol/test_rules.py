"""What the rules find in expositions: real ones, and real ones with one thing wrong."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.conformance.catalogue import RULES
from tidegate.protocol.conformance.evidence import gather
from tidegate.protocol.conformance.finding import Level
from tidegate.protocol.conformance.transport import FilterProbe, judge_filter
from tidegate.protocol.conformance.verdict import judge
from tidegate.protocol.engines import ENGINES
from verdicts import EXPOSITIONS, FIXTURES, answer, found, golden_path, render, verdict

DOCS = Path(__file__).parents[2] / "docs" / "check.md"
TRITON = "triton-tensorrt-llm"

VLLM = """\
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="m"} 3
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 2
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{model_name="m"} 0.5
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="32",num_gpu_blocks="128"} 1
"""


def fixture(path: str) -> str:
    return (FIXTURES / path).read_text()


def vllm_with(old: str, new: str) -> str:
    """The exposition of a sound server, but for one thing."""
    assert old in VLLM
    return VLLM.replace(old, new)


def triton_with(label: str, value: str, path: str = "triton/loaded.txt") -> str:
    """A real exposition, but for the value of the series that have a label."""
    changed, count = re.subn(rf'(="{label}".*}}) \S+', rf"\1 {value}", fixture(path))
    assert count
    return changed


def without(text: str, *parts: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not any(part in line for part in parts))


@pytest.mark.parametrize("path", EXPOSITIONS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_verdict_on_a_real_exposition_is_the_golden_one(path: Path) -> None:
    assert render(path) == golden_path(path).read_text()


def test_the_rules_have_names_of_their_own_that_people_can_type() -> None:
    names = [rule.id for rule in RULES]

    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", name) for name in names)


def test_the_docs_list_every_rule_with_its_level_and_no_other() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \| (error|warning|info) \|", DOCS.read_text(), re.MULTILINE)

    assert listed == [(rule.id, str(rule.level)) for rule in RULES]


def test_a_sound_server_is_conformant() -> None:
    said = verdict(VLLM)

    assert said.conformant
    assert [finding.rule for finding in said.findings] == ["optional-signals-missing"]
    assert said.sources["queued_requests"] == "vllm:num_requests_waiting"
    assert said.sources["block_size"] == "label block_size of vllm:cache_config_info"


@pytest.mark.parametrize(
    ("engine", "path", "missing"),
    [
        ("llamacpp", "llamacpp/idle.txt", ["kv_utilization"]),
        ("triton", "triton/classifier_loaded.txt", ["running_requests", "kv_utilization"]),
    ],
)
def test_what_an_engine_never_publishes_is_named(engine: str, path: str, missing: list[str]) -> None:
    said = verdict(fixture(path), engine)

    assert not said.conformant
    assert [message.partition(":")[0] for message in found(said, "signal-missing")] == missing


def test_tgi_lacks_its_kv_utilization() -> None:
    said = verdict("tgi_queue_size 5\ntgi_batch_current_size 8\n", "tgi")

    assert found(said, "signal-missing") == ["kv_utilization: tgi does not publish it"]


@pytest.mark.parametrize(
    ("exposition", "rule"),
    [
        (without(VLLM, "num_requests_waiting"), "signal-absent-before-first-request"),
        (without(VLLM, "num_requests_waiting{"), "signal-absent-before-first-request"),
        (
            without(VLLM, "num_requests_waiting") + "vllm:request_success_total 0\n",
            "signal-absent-before-first-request",
        ),
        (without(VLLM, "num_requests_waiting{") + "vllm:request_success_total 1\n", "signal-missing"),
    ],
    ids=["not announced", "announced", "none finished", "one finished"],
)
def test_before_the_first_request_an_absent_gauge_is_a_warning_and_then_an_error(exposition: str, rule: str) -> None:
    said = verdict(exposition)

    [message] = found(said, rule)
    assert "queued_requests: no series of vllm:num_requests_waiting" in message
    assert said.conformant == (rule != "signal-missing")


def test_an_engine_whose_gauges_are_always_there_has_no_such_excuse() -> None:
    said = verdict(without(fixture("llamacpp/idle.txt"), "requests_deferred"), "llamacpp")

    assert [message.partition(":")[0] for message in found(said, "signal-missing")] == [
        "queued_requests",
        "kv_utilization",
    ]


def test_what_only_its_ingredients_tell_is_known_but_not_published() -> None:
    said = verdict(without(fixture("triton/loaded.txt"), '="waiting"', '="fraction"'), TRITON)

    assert (said.signals.queued_requests, said.signals.kv_utilization) == (4, 0.25)
    assert said.sources["queued_requests"] == (
        "nv_trt_llm_request_metrics{request_type=active} - nv_trt_llm_request_metrics{request_type=scheduled}"
    )
    assert said.sources["kv_utilization"] == (
        "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=used} / "
        "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"
    )
    assert not said.conformant
    assert [message.rpartition(" look for ")[2] for message in found(said, "composite-missing")] == [
        "nv_trt_llm_request_metrics{request_type=waiting}",
        "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}",
    ]


def test_an_older_name_is_read_and_told_of() -> None:
    said = verdict(vllm_with("kv_cache_usage_perc", "gpu_cache_usage_perc"))

    assert said.conformant
    assert said.signals.kv_utilization == 0.5
    assert "newer versions and most readers have vllm:kv_cache_usage_perc" in found(said, "older-name")[0]


@pytest.mark.parametrize(
    ("family", "type_", "signal"),
    [
        ("vllm:num_requests_waiting", "counter", "queued_requests"),
        ("vllm:kv_cache_usage_perc", "histogram", "kv_utilization"),
        ("vllm:cache_config_info", "counter", "block_size"),
    ],
)
def test_a_signal_that_is_no_gauge_is_an_error(family: str, type_: str, signal: str) -> None:
    said = verdict(vllm_with(f"# TYPE {family} gauge", f"# TYPE {family} {type_}"))

    assert found(said, "wrong-type") == [f"{signal}: {family} is a {type_} where a gauge is needed"]
    assert not said.conformant


def test_the_counter_that_is_taken_for_tritons_running_requests_is_an_error() -> None:
    said = verdict(fixture("triton/classifier_loaded.txt"), "triton")

    [message] = found(said, "wrong-type")
    assert message.startswith("running_requests: nv_inference_exec_count")
    assert "is a counter" in message


def test_a_signal_without_a_type_is_a_warning() -> None:
    said = verdict(without(VLLM, "# TYPE vllm:num_requests_waiting"))

    assert found(said, "type-undeclared") == ["queued_requests: vllm:num_requests_waiting has no type"]
    assert said.conformant


@pytest.mark.parametrize("value", ["-1", "2.5", "NaN", "+Inf", "1e300"])
def test_a_count_that_cannot_be_meant_is_an_error_and_no_absence(value: str) -> None:
    said = verdict(vllm_with('"} 3', f'"}} {value}'))

    assert len(found(said, "count-invalid")) == 1
    assert not found(said, "signal-absent-before-first-request")
    assert said.signals.queued_requests is None
    assert not said.conformant


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("2", "utilization-in-percent"),
        ("45", "utilization-in-percent"),
        ("100", "utilization-in-percent"),
        ("1.02", "utilization-out-of-range"),
        ("-0.1", "utilization-out-of-range"),
        ("101", "utilization-out-of-range"),
        ("NaN", "utilization-out-of-range"),
        ("+Inf", "utilization-out-of-range"),
    ],
)
def test_utilization_beyond_0_and_1_is_an_error(value: str, rule: str) -> None:
    said = verdict(vllm_with("0.5", value))

    assert [finding.rule for finding in said.findings if finding.level is Level.ERROR] == [rule]


@pytest.mark.parametrize("value", ["0", "1", "1.0"])
def test_the_ends_of_the_range_are_within_it(value: str) -> None:
    assert verdict(vllm_with("0.5", value)).conformant


@pytest.mark.parametrize(("label", "value"), [("block_size", "None"), ("block_size", "0"), ("num_gpu_blocks", "-3")])
def test_an_optional_value_that_cannot_be_meant_is_a_warning(label: str, value: str) -> None:
    said = verdict(re.sub(f'{label}="[^"]*"', f'{label}="{value}"', VLLM))

    [message] = found(said, "optional-value-invalid")
    assert f"label {label} of vllm:cache_config_info is {value!r}" in message
    assert said.conformant


@pytest.mark.parametrize(
    ("label", "value", "rule", "says"),
    [
        ("waiting", "3", "waiting-inconsistent", "waiting is 3, but active - scheduled is 8 - 4 = 4"),
        ("waiting", "9", "waiting-exceeds-active", "if 5 of them wait outside active"),
        ("fraction", "0.26", "fraction-inconsistent", "the fraction is 0.26, but used / max is 24 / 96 = 0.25"),
        ("free", "71", "blocks-inconsistent", "24 used + 71 free are not 96 max"),
    ],
)
def test_a_composite_that_is_not_what_its_ingredients_make_is_found(
    label: str, value: str, rule: str, says: str
) -> None:
    said = verdict(triton_with(label, value), TRITON)

    [message] = found(said, rule)
    assert says in message
    assert "model=tensorrt_llm" in message
    assert said.conformant == (rule == "waiting-exceeds-active")


def test_composites_are_compared_model_by_model() -> None:
    two = fixture("triton/two_models_summaries_loaded.txt")
    swapped = (
        two.replace('request_type="waiting",version="1"} 1', 'request_type="waiting",version="1"} x')
        .replace('request_type="waiting",version="1"} 3', 'request_type="waiting",version="1"} 1')
        .replace('"} x', '"} 3')
    )

    assert not found(verdict(two, TRITON), "waiting-inconsistent")
    assert "model=llama_b" in found(verdict(swapped, TRITON), "waiting-inconsistent")[0]


@pytest.mark.parametrize(
    ("label", "value"), [("waiting", "NaN"), ("active", "8.5"), ("max", "-1"), ("fraction", "NaN")]
)
def test_what_is_no_figure_is_not_compared(label: str, value: str) -> None:
    rules = {finding.rule for finding in verdict(triton_with(label, value), TRITON).findings}

    assert not {rule for rule in rules if rule.endswith("-inconsistent") or rule == "waiting-exceeds-active"}


def test_rounding_a_fraction_is_no_inconsistency() -> None:
    assert verdict(triton_with("fraction", "0.2504"), TRITON).conformant


def test_a_series_that_occurs_twice_is_an_error_with_its_lines() -> None:
    said = verdict(VLLM + 'vllm:num_requests_running{model_name="m"} 2\nvllm:num_requests_running{model_name="n"} 0\n')

    assert found(said, "duplicate-series") == ["series that occur twice: vllm:num_requests_running in lines 4 and 9"]
    assert not said.conformant


@pytest.mark.parametrize(
    ("path", "engine", "says"),
    [
        ("vllm/dp2_loaded.txt", "vllm", "2 ranks of one model"),
        ("triton/summaries_idle.txt", TRITON, "2 models (llama_b 1, tensorrt_llm 1)"),
    ],
)
def test_several_models_or_ranks_are_told_with_how_they_are_combined(path: str, engine: str, says: str) -> None:
    [message] = found(verdict(fixture(path), engine), "several-models-or-ranks")

    assert message.startswith(says)
    assert "kv_utilization is that of the fullest" in message


@pytest.mark.parametrize(
    ("size", "messages"),
    [("64", ["block_size: blocks of 32, 64 tokens; the smallest counts"]), ("32", []), ("0", []), ("NaN", [])],
)
def test_models_with_blocks_of_other_sizes_are_a_warning(size: str, messages: list[str]) -> None:
    exposition = re.sub(
        r'("tokens_per",model="llama_b".*}) 32', rf"\1 {size}", fixture("triton/two_models_summaries_loaded.txt")
    )

    assert found(verdict(exposition, TRITON), "block-sizes-differ") == messages


@pytest.mark.parametrize(
    ("labels", "value", "says"),
    [
        ('max_lora="4",running_lora_adapters="a"', "1.7e9", "no label waiting_lora_adapters"),
        ('max_lora="x",running_lora_adapters="a",waiting_lora_adapters=""', "1.7e9", "max_lora is 'x'"),
        ('max_lora="4",running_lora_adapters="a,,b",waiting_lora_adapters=""', "1.7e9", "a name that is empty"),
        ('max_lora="4",running_lora_adapters="a",waiting_lora_adapters=""', "1", "its value 1 is no time"),
        ('max_lora="4",running_lora_adapters="a",waiting_lora_adapters=""', "NaN", "its value nan is no time"),
    ],
)
def test_lora_series_that_are_malformed_are_an_error(labels: str, value: str, says: str) -> None:
    said = verdict(f"{VLLM}# TYPE vllm:lora_requests_info gauge\nvllm:lora_requests_info{{{labels}}} {value}\n")

    assert says in found(said, "lora-malformed")[0]
    assert not said.conformant


def test_of_many_malformed_lora_series_one_is_shown() -> None:
    series = "".join(f'vllm:lora_requests_info{{max_lora="{number}x"}} 1.7e9\n' for number in range(9))

    [message] = found(verdict(VLLM + series), "lora-malformed")

    assert message.endswith(", and 8 more such series")


def test_a_syntax_error_anywhere_is_an_error_with_its_place() -> None:
    said = verdict(VLLM + "other{a=1} 2\n")

    [message] = found(said, "syntax-error")
    assert message.startswith("line 9, column 8: ")
    assert said.signals.queued_requests == 3


def test_of_many_syntax_errors_a_few_are_shown() -> None:
    messages = found(verdict(VLLM + "x\n" * 50), "syntax-error")

    assert len(messages) == 5
    assert messages[-1].endswith("; 45 more such errors")
    assert "more such" not in "".join(messages[:-1])


def test_a_malformed_line_of_a_signal_makes_the_signals_unreadable() -> None:
    said = verdict(vllm_with('"} 3', '"} three'))

    assert found(said, "syntax-error")
    assert "malformed exposition" in found(said, "signals-unreadable")[0]
    assert not found(said, "signal-missing")


def test_an_exposition_of_another_engine_than_the_one_named_is_an_error() -> None:
    said = verdict(fixture("triton/loaded.txt"), "vllm")

    assert "no name begins with 'vllm:'" in found(said, "signals-unreadable")[0]
    assert not said.conformant


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; version=0.0.4",
        "text/plain;version=1.0.0;charset=utf-8",
        'text/plain; version="0.0.4"; charset="utf-8"',
        "text/plain; version=1.0.0; escaping=allow-utf-8; charset=utf-8",
    ],
)
def test_content_types_of_expositions_are_fine(content_type: str) -> None:
    assert not found(verdict(VLLM, content_type=content_type), "content-type-wrong")


@pytest.mark.parametrize(
    "content_type", ["", "text/html", "application/json", "text/plain; version=2", "text/plain; charset=latin-1"]
)
def test_other_content_types_are_a_warning(content_type: str) -> None:
    said = verdict(VLLM, content_type=content_type)

    assert len(found(said, "content-type-wrong")) == 1
    assert said.conformant


def test_openmetrics_is_held_to_its_own_rules() -> None:
    content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"

    assert verdict(VLLM + "# EOF\n", content_type=content_type).conformant
    assert "no # EOF" in found(verdict(VLLM, content_type=content_type), "syntax-error")[0]


def test_slow_and_large_scrapes_are_warnings() -> None:
    large = VLLM + "".join(f'other{{n="{number}"}} 1\n' for number in range(60_000))

    assert found(verdict(VLLM, took_s=0.25), "scrape-slow") == ["the scrape took 250 ms, more than 100 ms"]
    assert found(verdict(large), "exposition-large")
    assert not {"scrape-slow", "exposition-large"} & {finding.rule for finding in verdict(VLLM, took_s=0.1).findings}


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, 'vllm:num_requests_waiting{model_name="m"} 3\n', "honoured: 1 of 4 samples"),
        (200, VLLM, "ignored"),
        (200, "", "gives nothing"),
        (400, "", "status 400"),
    ],
)
def test_what_a_filter_by_name_does_is_told(status: int, body: str, says: str) -> None:
    whole = gather(answer(VLLM), ENGINES["vllm"]).reading

    finding = judge_filter(FilterProbe(family="vllm:num_requests_waiting", status=status, body=body.encode()), whole)

    assert says in finding.message


def test_what_a_server_writes_cannot_act_on_a_terminal_or_flood_it() -> None:
    hostile = fixture("triton/loaded.txt").replace('model="tensorrt_llm"', 'model="\x1b[2J\\n%s"' % ("x" * 9000))
    wrong = re.sub(r'(="free".*}) \S+', r"\1 71", hostile)

    [message] = found(verdict(wrong, TRITON), "blocks-inconsistent")

    assert message.isprintable()
    assert r"(model=\x1b[2J\nxxx" in message
    assert len(message) < 700


names = [*(family for engine in ENGINES.values() for family in engine.families), "nv_inference_exec_count", "other"]
written = st.builds(
    "{}{}{} {}".format,
    st.sampled_from(["", "# TYPE ", "# HELP "]),
    st.sampled_from(sorted(names)),
    st.sampled_from(["", "{}", '{request_type="active"}', '{kv_cache_block_type="max"}', '{max_lora="x"}', "{"]),
    st.sampled_from(["0", "1.0", "NaN", "-5", "+Inf", "1e400", "x", "", "gauge", "counter"]),
)


@given(st.lists(written).map("\n".join), st.sampled_from(list(ENGINES.values())), st.text(max_size=20))
def test_any_exposition_of_any_engine_is_judged(exposition: str, engine: object, content_type: str) -> None:
    said = judge(answer(exposition, content_type=content_type), engine)  # type: ignore[arg-type]

    assert all(finding.message and "\n" not in finding.message for finding in said.findings)
    assert all(finding.fix for finding in said.findings if finding.level is not Level.INFO)
    assert {finding.rule for finding in said.findings} <= {rule.id for rule in RULES}
