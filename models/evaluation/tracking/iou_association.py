"""Plain association by the IoU of boxes, in the manner of ByteTrack: what the tracker is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.evaluation.evaluation import labels_on_grid
from cliprl.pipeline.core.segmentation import Instance, Instances
from cliprl.pipeline.tracking.assignment import assign
from cliprl.pipeline.tracking.groups import ClassGroups
from cliprl.pipeline.tracking.tracker import TrackerInput

# Cells of the smallest detection; least IoU of the two rounds; score of a detection of the first round.
_SPECK, _FIRST_IOU, _SECOND_IOU, _SURE = 8, 0.2, 0.5, 0.6
# Frames for which a lost track is kept.
_BUFFER = 30


@dataclass(slots=True, eq=False)
class _BoxTrack:
    id: int
    box: NDArray[np.float64]  # left, top, right, bottom
    velocity: NDArray[np.float64]
    missing: int = 0


class IouAssociation:
    """Tracks each connected region of an instrument group: boxes of constant velocity, sure detections first."""

    def __init__(self, groups: ClassGroups) -> None:
        self._groups = groups
        self._tracks: list[_BoxTrack] = []
        self._ids = 0

    def update(self, given: TrackerInput) -> Instances:
        """Find the instruments of a frame."""
        labels = given.segmentation.labels
        mask = (self._groups.table[labels] > 0).view(np.uint8)
        count, components, stats, _ = cv2.connectedComponentsWithStats(mask)
        regions = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] >= _SPECK]
        boxes = [stats[i, :4].astype(np.float64) for i in regions]
        boxes = [np.array([x, y, x + w, y + h]) for x, y, w, h in boxes]
        members = np.flatnonzero(self._groups.table[: len(given.segmentation.probabilities)])
        best = given.segmentation.probabilities[members].sum(axis=0)
        scores = [float(best[components == i].mean()) for i in regions]
        owners = self._match(boxes, scores)
        ids, items = np.zeros(labels.shape, np.uint16), []
        for region, owner in zip(regions, owners, strict=True):
            if owner:
                ids[components == region] = owner
                items.append(Instance(owner, "instrument", 0, int(stats[region, cv2.CC_STAT_AREA])))
        return Instances(ids, tuple(items))

    def _match(self, boxes: list[NDArray[np.float64]], scores: list[float]) -> list[int]:
        for track in self._tracks:
            track.box, track.missing = track.box + track.velocity, track.missing + 1
        owners = [0] * len(boxes)
        sure = [i for i, score in enumerate(scores) if score >= _SURE]
        self._round(boxes, owners, sure, self._tracks, _FIRST_IOU)
        unsure = [i for i in range(len(boxes)) if i not in sure]
        self._round(boxes, owners, unsure, [t for t in self._tracks if t.missing == 1], _SECOND_IOU)
        for i in sure:
            if not owners[i]:
                self._ids += 1
                owners[i] = self._ids
                self._tracks.append(_BoxTrack(self._ids, boxes[i], np.zeros(4)))
        self._tracks = [track for track in self._tracks if track.missing <= _BUFFER]
        return owners

    def _round(
        self,
        boxes: list[NDArray[np.float64]],
        owners: list[int],
        chosen: list[int],
        tracks: list[_BoxTrack],
        least: float,
    ) -> None:
        free = [track for track in tracks if track.missing]
        if not chosen or not free:
            return
        costs = np.array([[1 - _box_iou(boxes[i], track.box) for track in free] for i in chosen])
        for i, column in zip(chosen, assign(costs, 1 - least), strict=True):
            if column >= 0:
                track = free[column]
                step = (boxes[i] - track.box + track.velocity) / track.missing
                track.velocity = 0.7 * track.velocity + 0.3 * step
                track.box, track.missing, owners[i] = boxes[i], 0, track.id


def _box_iou(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    inner = float(np.prod(np.maximum(high - low, 0)))
    areas = [float(np.prod(box[2:] - box[:2])) for box in (one, other)]
    return inner / (sum(areas) - inner) if inner else 0.0


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
