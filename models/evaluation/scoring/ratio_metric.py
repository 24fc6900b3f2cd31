"""Scores as functions of sums: each frame adds a row, and the score of any set of frames is a function of their sum.

Therefore the score of all frames, of one sequence, and of a bootstrap resample have the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.models.evaluation.scoring.confusion_counts import rows_of

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RatioMetric:
    """`rows` float64 (N, M, 2): M pairs (numerator, denominator) a frame. `finish` makes scores (...) of sums (..., M, 2)."""

    rows: Array
    reduce: Callable[[Array], Array]

    def value(self) -> float:
        """The score over all frames; NaN where it is not defined."""
        return float(self.reduce(self.rows.sum(0)))

    def columns(self) -> Array:
        """Numerator over denominator of each of the M columns, over all frames: (M,), NaN where the denominator is 0."""
        return column_ratio(self.rows.sum(0))

    def by_sequence(self, sequences: Sequence[str]) -> dict[str, float]:
        """The score of each sequence alone."""
        return {name: float(self.reduce(self.rows[rows].sum(0))) for name, rows in rows_of(sequences).items()}


def mean_of_ratios(numerator: NDArray[np.generic], denominator: NDArray[np.generic]) -> RatioMetric:
    """A mean over columns of numerators (N, M) pooled over frames, over denominators (N, M) pooled over frames."""
    return RatioMetric(np.stack([numerator, denominator], axis=-1).astype(np.float64), mean_ratio)


def column_ratio(sums: Array) -> Array:
    """Numerator over denominator (...) of sums (..., 2); NaN where the denominator is 0."""
    bottom = sums[..., 1]
    return np.where(bottom > 0, sums[..., 0] / np.where(bottom > 0, bottom, 1), np.nan)


def mean_ratio(sums: Array) -> Array:
    """The mean (...) over the columns of sums (..., M, 2) whose denominator is not 0; NaN where there is none."""
    values = column_ratio(sums)
    defined = np.isfinite(values)
    count = defined.sum(-1)
    total = np.where(defined, values, 0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
