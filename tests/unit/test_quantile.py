"""Quantiles as Prometheus has them. tests/stack/test_monitoring.py asks a real one for the same."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsv4_stack.figures.quantile import quantile, since

TTFT = {"0.1": 0.0, "0.2": 10.0, "0.4": 20.0, "+Inf": 20.0}
COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=12)


def cumulated(counts: list[int]) -> dict[str, float]:
    """Buckets with the bounds 1, 2, 4, … and infinity."""
    bounds = [*(str(float(2**power)) for power in range(len(counts) - 1)), "+Inf"]
    return {bound: float(sum(counts[: place + 1])) for place, bound in enumerate(bounds)}


@pytest.mark.parametrize(
    ("share", "value"), [(0.25, 0.15), (0.5, 0.2), (0.75, 0.3), (0.95, 0.38), (1.0, 0.4), (0.0001, 0.10002)]
)
def test_values_are_spread_evenly_within_a_bucket(share: float, value: float) -> None:
    assert quantile(share, TTFT) == pytest.approx(value)


def test_the_first_bucket_begins_at_nothing() -> None:
    assert quantile(0.5, {"10": 4.0, "+Inf": 4.0}) == 5.0


def test_what_is_beyond_every_bound_is_at_the_last() -> None:
    assert quantile(0.99, {"1": 1.0, "2": 2.0, "+Inf": 100.0}) == 2.0


@pytest.mark.parametrize("buckets", [{}, {"1": 0.0, "+Inf": 0.0}, {"+Inf": 5.0}])
def test_of_nothing_there_is_none(buckets: dict[str, float]) -> None:
    assert quantile(0.5, buckets) is None


def test_the_order_of_the_lines_does_not_matter() -> None:
    assert quantile(0.75, dict(reversed(TTFT.items()))) == quantile(0.75, TTFT)


@given(COUNTS, st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_larger_share_has_no_smaller_value(counts: list[int], one: float, other: float) -> None:
    buckets = cumulated(counts)
    small, large = quantile(min(one, other), buckets), quantile(max(one, other), buckets)
    assert (small is None) == (large is None)
    if small is not None and large is not None:
        assert 0 <= small <= large + 1e-9
        assert large <= max((float(bound) for bound in buckets if float(bound) < inf), default=0)


@given(COUNTS, COUNTS, st.floats(0.001, 1))
def test_what_was_between_two_looks_is_as_if_it_were_alone(before: list[int], more: list[int], share: float) -> None:
    size = min(len(before), len(more))
    first, second = cumulated(before[:size]), cumulated(more[:size])
    both = {bound: first[bound] + second[bound] for bound in first}
    assert since(first, both) == second
    assert quantile(share, since(first, both)) == quantile(share, second)


def test_an_engine_that_was_started_anew_counts_from_nothing() -> None:
    assert since({"1": 5.0, "+Inf": 9.0}, {"1": 2.0, "+Inf": 3.0}) == {"1": 2.0, "+Inf": 3.0}


def test_a_histogram_that_is_new_counts_whole() -> None:
    assert since({}, TTFT) == TTFT
