"""From kept labels back to logits on the grid."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import Viewport

# The least share of a cell that a class is given, so that its logit is finite.
_LEAST = 1e-3


def logits_of_labels(
    labels: NDArray[np.uint8], frame: Frame, view: Viewport, logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return logits float32 (K, h, w) whose segmentation is `labels`, uint8 (H, W) of the frame as displayed.

    Cells outside the view's crop keep their `logits` (K, h, w).
    """
    stored = np.rot90(labels, -(frame.rotation // 90))
    left, top, width, height = view.crop
    crop = stored[top : top + height, left : left + width]
    rows, columns = logits.shape[1:]
    x0, y0, across, down = (
        round(value * size / total)
        for value, size, total in zip(
            view.placed, (columns, rows) * 2, (view.network_width, view.network_height) * 2, strict=True
        )
    )
    shares = np.full((len(logits), down, across), _LEAST, np.float32)
    for class_id in np.flatnonzero(np.bincount(crop.ravel(), minlength=len(logits))):
        mask = (crop == class_id).astype(np.float32)
        shares[class_id] += cv2.resize(mask, (across, down), interpolation=cv2.INTER_AREA)
    found = logits.copy()
    found[:, y0 : y0 + down, x0 : x0 + across] = np.log(shares)
    return found
