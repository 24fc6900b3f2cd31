"""Bootstrap intervals over whole sequences, never over single frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cliprl.models.evaluation.scoring.confusion_counts import rows_of
from cliprl.models.evaluation.scoring.ratio_metric import RatioMetric

RESAMPLES = 2000
CONFIDENCE = 0.95


def interval(score: RatioMetric, sequences: Sequence[str], seed: int = 0) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval (Efron 1979) at `CONFIDENCE` over sequences, drawn with replacement.

    Frames of one video are near copies of each other, so the sequence is the unit. Returns None for fewer than two
    sequences, and if no resample has a score.
    """
    sums = np.stack([score.rows[rows].sum(0) for rows in rows_of(sequences).values()]) if sequences else score.rows
    if len(sums) < 2:
        return None
    draws = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    values = score.reduce(np.tensordot(draws, sums, axes=1))
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
