"""Bootstrap intervals over whole sequences or blocks of frames, never over single frames, which are near copies of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.models.evaluation.scoring.confusion_counts import rows_of
from cliprl.models.evaluation.scoring.ratio_metric import RatioMetric

RESAMPLES, BLOCK_RESAMPLES = 2000, 1000
CONFIDENCE = 0.95
# Consecutive frames of a block.
BLOCK_FRAMES = 25


def resample(sums: NDArray[Any], count: int = RESAMPLES, seed: int = 0) -> NDArray[Any]:
    """Return the totals (`count`, ...) of resamples of the sums (N, ...) of sequences or blocks, drawn with replacement."""
    draws = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), count)
    return np.tensordot(draws, sums, axes=1)


def percentiles(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the percentiles of the scores (N,) of resamples between which `CONFIDENCE` of them lie."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def interval(score: RatioMetric, sequences: Sequence[str], seed: int = 0) -> tuple[float, float] | None:
    """Return the percentile bootstrap interval (Efron 1979) at `CONFIDENCE` over sequences, drawn with replacement.

    Returns None for fewer than two sequences, and if no resample has a score.
    """
    sums = np.stack([score.rows[rows].sum(0) for rows in rows_of(sequences).values()]) if sequences else score.rows
    if len(sums) < 2:
        return None
    values = score.reduce(resample(sums, seed=seed))
    values = values[np.isfinite(values)]
    return percentiles(values) if values.size else None


def blocks_of_clips(clips: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the block of each frame: at most `BLOCK_FRAMES` consecutive frames of one clip."""
    blocks, block, length = [], -1, 0
    for n, clip in enumerate(clips):
        fresh = n == 0 or clip != clips[n - 1] or length == BLOCK_FRAMES
        block, length = (block + 1, 1) if fresh else (block, length + 1)
        blocks.append(block)
    return np.array(blocks, np.intp)


def block_interval(parts: Sequence[tuple[NDArray[np.int64], float]], blocks: NDArray[np.intp]) -> list[float] | None:
    """Return the interval over blocks of a weighted sum of ratios; each part is frames (N, 2) and a weight."""
    count = int(blocks[-1]) + 1
    if count < 2:
        return None
    total = np.zeros(BLOCK_RESAMPLES)
    for frames, weight in parts:
        sums = np.stack([np.bincount(blocks, frames[:, n], count) for n in range(2)], axis=-1)
        drawn = resample(sums, BLOCK_RESAMPLES)
        total += weight * drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    return [round(value, 4) for value in percentiles(total)]
