"""Find out whether masks are displaced: whether they fit the network's own masks better after they are moved.

Held-out frames cannot show this fault, because their masks have it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_to_instrument
from cliprl.models.data.sample import IGNORE
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.pipeline.overlay.upsample import labels_at_frame

# The width to which masks are reduced, and the largest displacement as a share of it.
_WIDTH, _REACH = 96, 0.3
# A displaced fit counts from this IoU on: below, the network does not know the scene well enough to judge masks.
_CONVINCING = 0.5

_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Displacement:
    """The IoU of the network's instruments with masks as they are, and after each is moved to where it fits best.

    `right` and `down` are the median of the best moves as shares of the image width.
    """

    iou: float
    moved_iou: float
    right: float
    down: float

    def exceeds(self, points: float) -> bool:
        """Return whether masks fit convincingly, and better by more than `points` of IoU, after they are moved."""
        return self.moved_iou >= _CONVINCING and 100 * (self.moved_iou - self.iou) > points


def measure_displacement(bundle: Bundle, dataset: LabelledDataset, steps: int | None = None) -> Displacement | None:
    """Compare a bundle's masks with those of a data set whose labels index its classes; None without any instrument."""
    segmenter = ImageSegmenter(bundle, precision="f32", steps=steps)
    table = map_to_instrument(bundle.manifest.classes, bundle.manifest.classes, ())
    rows = []
    for _, sample, fresh in iterate_samples(dataset, list(range(len(dataset)))):
        if fresh:
            segmenter.reset()
        truth = table.truth[sample.labels]
        found = table.predicted[labels_at_frame(segmenter.segment(sample.image), *truth.shape)]
        if (truth == 1).any():
            rows.append(best_displacement(_reduced((found == 1) & (truth != IGNORE)), _reduced(truth == 1)))
    if not rows:
        return None
    own, moved = (np.sum([row[side] for row in rows], axis=0) for side in (0, 1))
    down, right = np.median([row[2] for row in rows], axis=0)
    return Displacement(_ratio(own), _ratio(moved), float(right) / _WIDTH, float(down) / _WIDTH)


def best_displacement(found: _Mask, truth: _Mask) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return pixels of intersection and union as they are, those of the best displacement of `truth`, and it (down, right).

    found, truth: bool (h, w). Moved pixels that leave the image do not count.
    """
    height, width = found.shape
    reach = int(_REACH * width)
    padded = np.zeros((height + 2 * reach, width + 2 * reach), np.float32)
    padded[reach : reach + height, reach : reach + width] = found
    overlap = np.rint(cv2.matchTemplate(padded, truth.astype(np.float32), cv2.TM_CCORR)).astype(np.int64)
    inside = cv2.matchTemplate(_frame(height, width, reach), truth.astype(np.float32), cv2.TM_CCORR)
    union = int(found.sum()) + np.rint(inside).astype(np.int64) - overlap
    down, right = np.unravel_index(int(np.argmax(overlap / np.maximum(union, 1))), overlap.shape)
    own, best = (np.array([overlap[place], union[place]]) for place in ((reach, reach), (down, right)))
    return own, best, np.array([down - reach, right - reach])


def _frame(height: int, width: int, reach: int) -> NDArray[np.float32]:
    return np.pad(np.ones((height, width), np.float32), reach)


def _reduced(mask: _Mask) -> _Mask:
    height = max(1, round(_WIDTH * mask.shape[0] / mask.shape[1]))
    return cv2.resize(mask.astype(np.uint8), (_WIDTH, height), interpolation=cv2.INTER_NEAREST) > 0


def _ratio(pair: NDArray[np.int64]) -> float:
    return float(pair[0]) / max(1.0, float(pair[1]))
