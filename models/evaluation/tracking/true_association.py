"""The true ids on a network's masks: what they miss is lost by the masks, not by the association."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.evaluation.tracking.observations import labels_on_grid
from cliprl.pipeline.core.segmentation import Instance, Instances
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.tracker import TrackerInput

# Cells from the nearest cell of an instrument, from which a region is a false alarm.
_FAR = 4


class TrueAssociation:
    """Gives each cell of an instrument's mask the id of the nearest instrument of `truth`: ids (H, W), 0 for none."""

    def __init__(self, groups: ClassGroups) -> None:
        self._groups = groups
        self.truth: NDArray[np.uint8] = np.zeros((1, 1), np.uint8)

    def update(self, given: TrackerInput) -> Instances:
        """Return the instruments of a frame."""
        labels = given.segmentation.labels
        cells = labels_on_grid(self.truth, given.segmentation.view, labels.shape)
        free = (cells == 0).view(np.uint8)
        far, nearest = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
        values = np.zeros(int(nearest.max()) + 1, np.uint16)
        values[nearest[cells > 0]] = cells[cells > 0]
        ids = np.where((self._groups.table[labels] > 0) & (far <= _FAR), values[nearest], 0).astype(np.uint16)
        counts = np.bincount(ids.ravel())
        items = (Instance(number, "instrument", 0, int(counts[number])) for number in np.flatnonzero(counts).tolist())
        return Instances(ids, tuple(item for item in items if item.id))
