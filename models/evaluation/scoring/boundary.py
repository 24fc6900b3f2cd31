"""Normalized surface distance: the share of an outline within a tolerance of the other outline."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.sample import IGNORE
from cliprl.models.evaluation.scoring.confusion_counts import Labels
from cliprl.models.evaluation.scoring.ratio_metric import Array, RatioMetric, mean_of_ratios

BinaryMask = NDArray[np.bool_]
TOLERANCE_PX = 5.0


class SurfaceDice:
    """The normalized surface distance of each foreground class (Nikolov et al. 2018, arXiv:1809.04430).

    NSD_c = (|S_T within t of S_P| + |S_P within t of S_T|) / (|S_T| + |S_P|), S the boundary pixels of class c in truth and
    prediction, t the tolerance in pixels; pooled over frames, then the mean over classes. A class in one mask alone scores 0
    there. A boundary pixel has one of its four neighbors in another class; the image's edge and pixels whose truth is
    IGNORE bound nothing.
    """

    def __init__(self, classes: int, tolerance: float = TOLERANCE_PX) -> None:
        self.classes, self.tolerance = classes, tolerance
        self.sequences: list[str] = []
        self._rows: list[Array] = []

    def add(self, truth: Labels, predicted: Labels, sequence: str) -> None:
        """Count one frame: two label maps uint8 (H, W) of one size."""
        known = truth != IGNORE
        row = np.zeros((self.classes - 1, 2))
        for c in range(1, self.classes):
            row[c - 1] = count_close(boundary(truth == c, known), boundary(predicted == c, known), self.tolerance)
        self._rows.append(row)
        self.sequences.append(sequence)

    def metric(self) -> RatioMetric:
        """The score: 1 is perfect."""
        rows = np.array(self._rows, np.float64).reshape(-1, self.classes - 1, 2)
        return mean_of_ratios(rows[..., 0], rows[..., 1])


def boundary(mask: BinaryMask, known: BinaryMask) -> BinaryMask:
    """The pixels of `mask` (H, W) that have a known 4-neighbor outside it."""
    outside = np.pad(known & ~mask, 1)
    beside = outside[:-2, 1:-1] | outside[2:, 1:-1] | outside[1:-1, :-2] | outside[1:-1, 2:]
    return mask & known & beside


def count_close(first: BinaryMask, second: BinaryMask, tolerance: float) -> tuple[int, int]:
    """Return the number of pixels of two boundaries (H, W) within `tolerance` of the other one, and their total."""
    total = int(first.sum() + second.sum())
    if not (first.any() and second.any()):
        return 0, total
    rows, columns = np.nonzero(first | second)
    part = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    first, second = first[part], second[part]
    close = (_distance(second)[first] <= tolerance).sum() + (_distance(first)[second] <= tolerance).sum()
    return int(close), total


def _distance(points: BinaryMask) -> NDArray[np.float32]:
    """Euclidean distance in pixels from each pixel to the nearest point."""
    return cv2.distanceTransform((~points).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float32)
