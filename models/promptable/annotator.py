"""A simulated annotator: clicks the center of the largest error of a mask."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.sample import IGNORE

_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Click:
    """A point in pixels of the mask (pixel centers at half-integers), on the object or beside it."""

    x: float
    y: float
    positive: bool


def next_click(mask: _Mask, truth: NDArray[np.uint8]) -> Click | None:
    """Return the click that corrects `mask` bool (H, W): the center of the largest region where it differs from `truth`.

    `truth` uint8 (H, W) is 1 on the object, 0 beside it, and IGNORE where it is unknown. None if there is no error.
    """
    found: list[tuple[int, _Mask, bool]] = []
    for positive in (True, False):
        wrong = (truth == int(positive)) & (mask != positive)
        count, regions, stats, _ = cv2.connectedComponentsWithStats(wrong.astype(np.uint8), connectivity=8)
        if count > 1:
            largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            found.append((int(stats[largest, cv2.CC_STAT_AREA]), regions == largest, positive))
    if not found:
        return None
    _, region, positive = max(found, key=lambda one: one[0])
    row, column = center_of(region)
    return Click(column + 0.5, row + 0.5, positive)


def center_of(region: _Mask) -> tuple[int, int]:
    """Return row and column of the point that is farthest from the outside of the region; the image's edge is outside."""
    padded = cv2.copyMakeBorder(region.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    row, column = np.unravel_index(int(distance.argmax()), distance.shape)
    return int(row), int(column)


def mask_iou(mask: _Mask, truth: NDArray[np.uint8]) -> float:
    """Return the IoU of a mask with the truth where that is known; 1 if both are empty."""
    known, object_ = truth != IGNORE, truth == 1
    union = np.count_nonzero((mask | object_) & known)
    return np.count_nonzero(mask & object_) / union if union else 1.0
