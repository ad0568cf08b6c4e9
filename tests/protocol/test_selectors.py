"""Metric selectors as people write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.protocol.errors import ConfigError
from tidegate.protocol.selectors import Selector, parse_selector

WAITING = Selector("nv_trt_llm_request_metrics", (("request_type", "waiting"),))


@pytest.mark.parametrize(
    "text",
    [
        "nv_trt_llm_request_metrics{request_type=waiting}",
        'nv_trt_llm_request_metrics{request_type="waiting"}',
        "nv_trt_llm_request_metrics{request_type='waiting'}",
        " nv_trt_llm_request_metrics { request_type = waiting , } ",
    ],
)
def test_quotes_and_spaces_are_optional(text: str) -> None:
    assert parse_selector(text) == WAITING


@pytest.mark.parametrize("text", ["vllm:num_requests_waiting", "vllm:num_requests_waiting{}"])
def test_a_family_alone_selects_all_of_its_series(text: str) -> None:
    selector = parse_selector(text)

    assert selector == Selector("vllm:num_requests_waiting")
    assert selector.matches({"engine": "1"})


def test_values_in_quotes_may_hold_commas_braces_and_escapes() -> None:
    assert parse_selector(r'f{a="x,y}\"\\\n",b=""}').labels == (("a", 'x,y}"\\\n'), ("b", ""))


def test_a_series_must_have_every_label_named_and_may_have_more() -> None:
    assert WAITING.matches({"model": "m", "request_type": "waiting"})
    assert not WAITING.matches({"model": "m", "request_type": "active"})
    assert not WAITING.matches({})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{a=b}",
        "0f",
        "f{a=b",
        "f a=b}",
        "f{a}",
        "f{a=}",
        "f{a=b c=d}",
        "f{a=b,,}",
        "f{a=b,a=c}",
        'f{a="b}',
        "f{0=b}",
    ],
)
def test_a_malformed_selector_is_an_error_that_shows_it_and_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match="malformed metric selector") as caught:
        parse_selector(text)
    assert repr(text) in str(caught.value)
    assert "family{label=value}" in str(caught.value)


label_names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]*", fullmatch=True)


@given(st.dictionaries(label_names, st.text()))
def test_a_selector_is_read_back_from_its_own_text(labels: dict[str, str]) -> None:
    selector = Selector("family", tuple(labels.items()))

    assert parse_selector(str(selector)) == selector


@given(st.text() | st.text("f{}=\"'\\, a", max_size=20))
def test_any_text_is_a_selector_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse_selector(text)
