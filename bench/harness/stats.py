"""Percentiles, spread, stability and ratios of samples, NaN where there are too few samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rounds = Sequence[Sequence[float]]
Array = NDArray[np.float64]
QUANTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99.9": 99.9}
# Largest relative difference of the medians of a run's two halves; beyond it the machine was too unsteady.
SPREAD_LIMIT = 0.10
RESAMPLES = 2000
CONFIDENCE = 95.0


@dataclass(frozen=True, slots=True)
class Digest:
    """Percentiles of samples in their own unit; NaN where there are too few samples.

    `spread` is the distance of the quartiles over the median. `drift` is how far the medians of the first and the second
    half lie apart, over the whole's median.
    """

    n: int
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    min: float
    max: float
    mean: float
    spread: float
    drift: float

    @property
    def stable(self) -> bool:
        """Whether the two halves agree within 10 %; a single sample counts as stable."""
        return not self.drift > SPREAD_LIMIT


def pooled(rounds: Rounds) -> Array:
    """All samples of all rounds, in the order in which they were taken."""
    return np.concatenate([np.asarray(samples, np.float64) for samples in rounds]) if rounds else np.empty(0)


def percentile(values: Array, q: float) -> float:
    """The q-th percentile, linear between samples; NaN if no sample is expected beyond it.

    The median exists for any number of samples.
    """
    enough = len(values) * (100 - q) / 100 >= 1 - 1e-9 or q <= 50
    return float(np.percentile(values, q)) if len(values) and enough else math.nan


def digest(rounds: Rounds) -> Digest:
    """Summarize samples, one sequence per round."""
    values = pooled(rounds)
    values = values[~np.isnan(values)]
    if not len(values):
        return Digest(0, *[math.nan] * 10)
    p50, p90, p95, p99, p999 = (percentile(values, q) for q in QUANTILES.values())
    quarters = np.percentile(values, (25, 75))
    spread = float(quarters[1] - quarters[0]) / abs(p50) if p50 else math.nan
    ends = float(values.min()), float(values.max())
    return Digest(len(values), p50, p90, p95, p99, p999, *ends, float(values.mean()), spread, drift(rounds))


def drift(rounds: Rounds) -> float:
    """Relative difference of the medians of two halves. NaN for fewer than two samples.

    With several rounds the halves are the first and the last rounds (the middle one of an odd number is left out), so that
    both contain the same frames; a single round is cut in the middle.
    """
    parts = list(rounds) if len(rounds) > 1 else [[value] for value in (rounds[0] if rounds else ())]
    half = len(parts) // 2
    if not half:
        return math.nan
    values = [pooled(part) for part in (parts[:half], parts[-half:], parts)]
    if not all(len(part) for part in values):
        return math.nan
    first, last, whole = (float(np.median(part)) for part in values)
    return abs(last - first) / abs(whole) if whole else math.nan


@dataclass(frozen=True, slots=True)
class Ratio:
    """B's median over A's, with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 1: the difference is more than noise."""
        return self.low > 1 or self.high < 1


def median_ratio(a: Rounds, b: Rounds) -> Ratio:
    """Median of `b` over median of `a`, both resampled: whole rounds if there are three or more, else blocks of frames.

    Neighboring frames are correlated; drawing single frames would make the interval too narrow.
    """
    random = np.random.default_rng(0)
    draws = _medians(b, random) / _medians(a, random)
    low, high = np.percentile(draws, ((100 - CONFIDENCE) / 2, (100 + CONFIDENCE) / 2))
    return Ratio(float(np.median(pooled(b)) / np.median(pooled(a))), float(low), float(high))


def _medians(rounds: Rounds, random: np.random.Generator) -> Array:
    if len(rounds) >= 3:
        blocks = [np.asarray(samples, np.float64) for samples in rounds]
    else:
        values = pooled(rounds)
        blocks = np.array_split(values, max(1, round(math.sqrt(len(values)))))
    picks = random.integers(len(blocks), size=(RESAMPLES, len(blocks)))
    return np.array([np.median(np.concatenate([blocks[i] for i in pick])) for pick in picks])
