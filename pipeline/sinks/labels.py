"""The labels of a frame's pixels, computed once for all sinks."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.frame import Frame
from cliprl.pipeline.scratch import Scratch
from cliprl.pipeline.segmentation import Segmentation
from cliprl.pipeline.upsample import labels_at


class _Latest(threading.local):
    def __init__(self) -> None:
        self.scratch = Scratch()
        self.segmentation: Segmentation | None = None
        self.labels = np.empty((0, 0), np.uint8)


_latest = _Latest()


def frame_labels(frame: Frame, segmentation: Segmentation) -> NDArray[np.uint8]:
    """The class of every luma pixel, uint8 (H, W). Valid until this thread asks for those of another segmentation."""
    shape = (frame.height, frame.width)
    if _latest.segmentation is not segmentation or _latest.labels.shape != shape:
        _latest.labels = labels_at(segmentation, *shape, _latest.scratch)
        _latest.segmentation = segmentation
    return _latest.labels
