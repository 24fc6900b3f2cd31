"""Temporal consistency without truth: the overlap of consecutive predictions."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.models.data.sample import IGNORE
from cliprl.models.evaluation.scoring.confusion_counts import ConfusionCounts, Labels
from cliprl.models.evaluation.scoring.iou import dataset_mdice_foreground, dataset_miou_foreground
from cliprl.models.evaluation.scoring.ratio_metric import RatioMetric

# Optical flow is computed, and warped masks are compared, at this width at most.
FLOW_WIDTH = 480
# The smallest side of images that optical flow is computed of.
FLOW_LEAST = 12


class TemporalConsistency:
    """Two scores of consecutive predictions of a clip, per foreground class pooled over pairs, then the mean over classes.

    The IoU of consecutive masks, which also counts true motion; and the Dice of each mask with its predecessor warped along
    the optical flow of the images (DIS: Kroeger et al. 2016, arXiv:1603.03590), which does not.
    """

    def __init__(self, classes: int) -> None:
        self.still, self.warped = ConfusionCounts(classes), ConfusionCounts(classes)
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._last: tuple[str, Labels, Labels, Labels] | None = None

    def add(self, image: Labels, predicted: Labels, clip: str, sequence: str) -> None:
        """Take the next frame: its image uint8 (H, W, 3) RGB, and its predicted labels (H, W).

        It is compared with the last one where both are of one clip; the pair counts for `sequence`.
        """
        gray, small = self._shrunk(image, predicted)
        last, self._last = self._last, (clip, predicted, gray, small)
        if last is None or last[0] != clip or last[1].shape != predicted.shape:
            return
        self.still.add(last[1], predicted, sequence)
        if min(gray.shape) >= FLOW_LEAST:
            self.warped.add(self._moved(last[2], gray, last[3]), small, sequence)

    def _shrunk(self, image: Labels, predicted: Labels) -> tuple[Labels, Labels]:
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = min(1.0, FLOW_WIDTH / gray.shape[1])
        size = (max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale)))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
        return gray.astype(np.uint8), cv2.resize(predicted, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(
            np.uint8
        )

    def _moved(self, before: Labels, now: Labels, labels: Labels) -> Labels:
        """`labels` of the image `before`, moved to where their pixels are `now`; IGNORE where they come from outside."""
        flow = self._flow.calc(now, before, np.zeros((*now.shape, 2), np.float32))
        height, width = now.shape
        x = np.arange(width, dtype=np.float32)[None] + flow[..., 0]
        y = np.arange(height, dtype=np.float32)[:, None] + flow[..., 1]
        warped = cv2.remap(labels, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE)
        return warped.astype(np.uint8)

    def iou(self) -> RatioMetric:
        """IoU of consecutive masks."""
        return dataset_miou_foreground(self.still)

    def warped_dice(self) -> RatioMetric:
        """Dice after warping by optical flow."""
        return dataset_mdice_foreground(self.warped)
