"""From the network's grid to the frame's: the ids of instruments with smooth boundaries."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.overlay.upsample import labels_at

# Instruments of a frame that a map can hold.
_MOST = 254


def ids_at(segmentation: Segmentation, height: int, width: int) -> NDArray[np.uint16]:
    """Return the id of the instrument at each pixel of a frame of this size, 0 for none: uint16 (height, width).

    Boundaries are as smooth as those of the classes: see `labels_at`. All 0 without instances.
    """
    instances = segmentation.instances
    if instances is None or not instances.items:
        return np.zeros((height, width), np.uint16)
    numbers = np.array([0, *(item.id for item in instances.items[:_MOST])], np.uint16)
    slots = np.zeros(int(numbers.max()) + 1, np.uint8)
    slots[numbers] = np.arange(len(numbers))
    cells = slots[np.minimum(instances.ids, numbers.max())]
    likeliest = segmentation.likeliest
    shown = np.flatnonzero(np.bincount(likeliest.labels[cells > 0]))
    presence = likeliest.probabilities[shown].sum(axis=0)
    nearest = _grown(cells)
    shares = np.stack([1 - presence, *(np.where(nearest == i, presence, 0) for i in range(1, len(numbers)))])
    smooth = Segmentation(cells, shares.astype(np.float32), segmentation.view, segmentation.confidence, 0)
    return numbers[labels_at(smooth, height, width)]


def _grown(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the value of the nearest cell that is not 0, for every cell."""
    free = (cells == 0).view(np.uint8)
    _, nearest = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    values = np.zeros(int(nearest.max()) + 1, np.uint8)
    values[nearest[cells > 0]] = cells[cells > 0]
    return np.asarray(values[nearest], np.uint8)
