"""Words of the command line → distributions of lengths → lengths."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.bench.lengths import LONGEST_PER_MEDIAN, MAX_TOKENS, TokenLengths, UniformLengths, parse_lengths
from tidegate.protocol.errors import ConfigError

TOKENS = st.integers(1, MAX_TOKENS)


def draw(text: str, count: int = 4000) -> list[int]:
    return parse_lengths(text).draw(np.random.default_rng(3), count)


@given(TOKENS)
def test_a_number_is_every_length(tokens: int) -> None:
    assert draw(str(tokens), 5) == [tokens] * 5


@given(TOKENS, TOKENS)
def test_a_range_holds_all_lengths_and_its_bounds_belong_to_it(one: int, other: int) -> None:
    least, most = sorted((one, other))

    lengths = parse_lengths(f"{least}..{most}")

    assert lengths == UniformLengths(least_tokens=least, most_tokens=most)
    assert least <= min(drawn := lengths.draw(np.random.default_rng(0), 50)) <= max(drawn) <= most


def test_a_range_is_evenly_spread() -> None:
    counts = np.bincount(draw("3..6"))[3:]

    assert counts / counts.sum() == pytest.approx([0.25] * 4, abs=0.03)


@given(st.integers(1, 10_000), st.floats(0, 3).map(lambda sigma: round(sigma, 3)))
def test_log_normal_lengths_stay_within_one_and_their_bound(median: int, sigma: float) -> None:
    drawn = draw(f"lognormal:{median},{sigma:.3f}", 50)

    assert 1 <= min(drawn) <= max(drawn) <= LONGEST_PER_MEDIAN * median


def test_log_normal_lengths_have_their_median_and_spread() -> None:
    drawn = np.log(draw("lognormal:200,0.8"))

    assert np.median(drawn) == pytest.approx(np.log(200), abs=0.05)
    assert drawn.std() == pytest.approx(0.8, rel=0.05)
    assert parse_lengths("lognormal:200,0.8") == TokenLengths(median_tokens=200, sigma=0.8, max_tokens=4000)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not a distribution"),
        ("12a", "is not a distribution"),
        ("-5", "is not a distribution"),
        ("٣", "is not a distribution"),
        ("1..2..3", "is not a distribution"),
        ("lognormal:200", "is not a distribution"),
        ("normal:200,1", "is not a distribution"),
        ("9..3", "Write 3..9."),
        ("0", "1 to 1,000,000 tokens"),
        ("0..9", "1 to 1,000,000 tokens"),
        ("1..1000001", "1 to 1,000,000 tokens"),
        ("lognormal:0,1", "1 to 1,000,000 tokens"),
        ("lognormal:9,3.1", "sigma"),
    ],
)
def test_what_is_no_distribution_is_refused_with_a_way_out(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_lengths(text)


@given(st.text(alphabet="0123456789.,:lognormal -", max_size=25))
def test_any_text_is_a_distribution_or_a_config_error(text: str) -> None:
    try:
        lengths = parse_lengths(text)
    except ConfigError:
        return
    assert all(1 <= length <= MAX_TOKENS for length in lengths.draw(np.random.default_rng(1), 20))
