"""Bootstrap intervals over blocks of consecutive frames, which are not independent of each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cliprl.models.studies.refiner_scores import BLOCK_FRAMES

RESAMPLES = 1000


def blocks_of_clips(clips: NDArray[np.str_]) -> NDArray[np.intp]:
    """Return the block of each frame: at most `BLOCK_FRAMES` consecutive frames of one clip."""
    blocks, block, length = [], -1, 0
    for n, clip in enumerate(clips):
        fresh = n == 0 or clip != clips[n - 1] or length == BLOCK_FRAMES
        block, length = (block + 1, 1) if fresh else (block, length + 1)
        blocks.append(block)
    return np.array(blocks, np.intp)


def bootstrap_interval(
    parts: Sequence[tuple[NDArray[np.int64], float]], blocks: NDArray[np.intp]
) -> list[float] | None:
    """Return the 95 % bootstrap interval over blocks of a weighted sum of ratios; each part is frames (N, 2) and a weight."""
    count = int(blocks[-1]) + 1
    if count < 2:
        return None
    draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
    total = np.zeros(RESAMPLES)
    for frames, weight in parts:
        sums = np.stack([np.bincount(blocks, frames[:, n], count) for n in range(2)], axis=-1)
        drawn = np.tensordot(draws, sums, axes=1)
        total += weight * drawn[:, 0] / np.maximum(drawn[:, 1], 1)
    return [round(float(value), 4) for value in np.quantile(total, (0.025, 0.975))]
