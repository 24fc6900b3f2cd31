"""The figures themselves: percentiles as NumPy has them, what may not be quoted, and intervals that hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.bench.harness import stats


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 3), st.integers(1, 999))
def test_percentiles_are_numpys_over_all_rounds(seed: int, tail: float, cut: int) -> None:
    values = list(np.random.default_rng(seed).lognormal(2, tail, 1200))
    digest = stats.digest([values[:cut], values[cut:]])
    expected = np.percentile(values, [50, 90, 95, 99, 99.9])
    np.testing.assert_allclose([digest.p50, digest.p90, digest.p95, digest.p99, digest.p999], expected)
    assert digest.max == max(values)
    assert digest.n == len(values)
    assert digest.mean == pytest.approx(np.mean(values))
    assert digest.spread == pytest.approx(np.subtract(*np.percentile(values, [75, 25])) / np.median(values))


@pytest.mark.parametrize(("n", "known"), [(1, 1), (9, 1), (10, 2), (20, 3), (99, 3), (100, 4), (999, 4), (1000, 5)])
def test_a_percentile_needs_a_sample_beyond_it(n: int, known: int) -> None:
    digest = stats.digest([list(np.linspace(1, 2, n))])
    values = [digest.p50, digest.p90, digest.p95, digest.p99, digest.p999]
    assert [not math.isnan(v) for v in values] == [True] * known + [False] * (5 - known)


def test_nothing_is_said_of_no_samples() -> None:
    digest = stats.digest([])
    assert digest.n == 0
    assert math.isnan(digest.p50)
    assert stats.digest([[math.nan, 1.0]]).n == 1


def test_halves_that_differ_are_unstable() -> None:
    assert stats.digest([[10.0] * 50 + [11.5] * 50]).stable is False
    assert stats.digest([[10.0] * 50 + [10.5] * 50]).stable is True
    assert stats.digest([[10.0] * 5, [99.0], [12.0] * 5]).stable is False  # the middle round belongs to no half
    assert stats.digest([[10.0] * 5, [99.0], [10.1] * 5]).stable is True
    assert stats.digest([[1.0]]).stable is True


@pytest.mark.parametrize("rounds", [1, 5])
def test_interval_holds_the_true_ratio_and_separates_noise_from_change(rounds: int) -> None:
    random = np.random.default_rng(1)
    a = [list(random.normal(10, 1, 200)) for _ in range(rounds)]
    same = [list(random.normal(10, 1, 200)) for _ in range(rounds)]
    slower = [list(random.normal(12, 1, 200)) for _ in range(rounds)]
    unchanged, changed = stats.median_ratio(a, same), stats.median_ratio(a, slower)
    assert unchanged.low < 1 < unchanged.high
    assert not unchanged.clear
    assert changed.low < 1.2 < changed.high
    assert changed.clear
    assert changed.high - changed.low < 0.1


def test_a_ratio_is_the_same_every_time() -> None:
    rounds = [[1.0, 2.0, 3.0, 4.0]]
    assert stats.median_ratio(rounds, rounds) == stats.median_ratio(rounds, rounds)
