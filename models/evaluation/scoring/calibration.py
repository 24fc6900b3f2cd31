"""Calibration: the gap between confidence and accuracy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliprl.models.evaluation.scoring.ratio_metric import Array, RatioMetric

BINS = 15


class Calibration:
    """The expected calibration error over pooled pixels, with 15 bins of equal width (Guo et al. 2017, arXiv:1706.04599).

    ECE = sum over bins b of n_b / n |accuracy_b - confidence_b|.
    """

    def __init__(self) -> None:
        self.sequences: list[str] = []
        self._rows: list[Array] = []

    def add(self, confidence: NDArray[np.floating], correct: NDArray[np.bool_], sequence: str) -> None:
        """Count one frame's pixels: `confidence` (n,) in 0..1 of the predicted class, and whether it was `correct` (n,)."""
        values = confidence.astype(np.float64).ravel()
        bins = np.clip((values * BINS).astype(np.intp), 0, BINS - 1)
        excess = np.bincount(bins, values - correct.ravel(), BINS)
        self._rows.append(np.stack([excess, np.bincount(bins, minlength=BINS)], axis=-1))
        self.sequences.append(sequence)

    def metric(self) -> RatioMetric:
        """Return the score: 0 is perfect."""
        return RatioMetric(np.array(self._rows, np.float64).reshape(-1, BINS, 2), _error)


def _error(sums: Array) -> Array:
    """ECE (...) of sums (..., BINS, 2): per bin, confidence minus correctness added up, and the number of pixels."""
    pixels = sums[..., 1].sum(-1)
    return np.where(pixels > 0, np.abs(sums[..., 0]).sum(-1) / np.maximum(pixels, 1), np.nan)
