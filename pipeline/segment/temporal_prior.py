"""What the segmenter remembers of the last frame, moved to where it lies in the next one."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport, frame_to_network, network_to_frame

# Mean absolute difference (0..255) of two network pictures above which the second belongs to another shot.
CUT = 32.0
# Every n-th pixel is enough to tell a cut.
STRIDE = 4


class TemporalPrior:
    """The refined logits of the last frame, as the temporal prior of the next.

    Left out at a cut and when the frame size changes; warped when the view (the endoscope's circle) has moved.
    """

    def __init__(self) -> None:
        self._logits: NDArray[np.float32] | None = None
        self._view: Viewport | None = None
        self._thumb: NDArray[np.int16] | None = None

    def is_cut(self, picture: NDArray[np.uint8]) -> bool:
        """Whether `picture`, uint8 (H, W, 3), starts another shot than the last one given."""
        thumb = picture[::STRIDE, ::STRIDE].astype(np.int16)
        previous, self._thumb = self._thumb, thumb
        return previous is not None and float(np.abs(thumb - previous).mean()) > CUT

    def recall(self, base: NDArray[Any], view: Viewport, cut: bool) -> NDArray[Any]:
        """The prior for a frame seen through `view`: float32 like `base` (1, K, h, w); `base` itself where there is none."""
        if self._logits is None or self._view is None or cut or self._logits.shape != base.shape:
            return base
        if (view.frame_height, view.frame_width) != (self._view.frame_height, self._view.frame_width):
            return base
        if (view.crop, view.placed) == (self._view.crop, self._view.placed):
            return self._logits
        return _warp(self._logits, self._view, view)

    def keep(self, logits: NDArray[Any], view: Viewport) -> None:
        """Remember a frame's refined logits (1, K, h, w); they are copied."""
        if self._logits is None or self._logits.shape != logits.shape:
            self._logits = np.empty(logits.shape, np.float32)
        np.copyto(self._logits, logits)
        self._view = view


def _warp(logits: NDArray[np.float32], old: Viewport, new: Viewport) -> NDArray[np.float32]:
    """Move a grid of logits from one view's coordinates to another's; what comes into view is filled from the edge."""
    height, width = logits.shape[2:]
    strides = np.array([old.network_width / width, old.network_height / height])
    to_frame, to_network = network_to_frame(old), frame_to_network(new)
    scale = to_network[:, :2] @ to_frame[:, :2]
    shift = to_network[:, :2] @ to_frame[:, 2] + to_network[:, 2]
    # Cell centres lie half a cell from the picture's corner, where the maps have their origin.
    matrix = np.column_stack([scale, shift / strides + (scale.diagonal() - 1) / 2])
    moved = [
        cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in logits[0]
    ]
    return np.stack(moved)[None].astype(np.float32, copy=False)
