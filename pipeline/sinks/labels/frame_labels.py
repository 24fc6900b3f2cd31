"""The labels of a frame's pixels, computed once for all sinks."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import UsageError
from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.overlay.upsample import labels_at
from cliprl.pipeline.tracking.id_map import ids_at


def check_classes(target: Path, spec: OutputSpec, segmentation: Segmentation | None) -> None:
    """Raise UsageError for a segmentation of more classes than an output was opened with."""
    count = 0 if segmentation is None else len(segmentation.probabilities)
    if count > len(spec.classes):
        raise UsageError(
            f"'{target}' was opened with {len(spec.classes)} classes, and the masks have {count}: give its OutputSpec all "
            "classes of the segmenter, as in OutputSpec(source.info, segmenter.classes)"
        )


class _Latest(threading.local):
    def __init__(self) -> None:
        self.scratch = BufferPool()
        self.segmentation: Segmentation | None = None
        self.frame = (0, 0, 0)
        self.labels = np.empty((0, 0), np.uint8)


_latest = _Latest()


def frame_labels(frame: Frame, segmentation: Segmentation) -> NDArray[np.uint8]:
    """The class of every pixel of the frame as it is displayed, turned by the frame's rotation: uint8 (height, width).

    Valid until this thread asks for those of another segmentation.
    """
    key = (frame.height, frame.width, frame.rotation)
    if _latest.segmentation is not segmentation or _latest.frame != key:
        labels = labels_at(segmentation, frame.height, frame.width, _latest.scratch)
        _latest.labels = np.ascontiguousarray(np.rot90(labels, frame.rotation // 90))
        _latest.segmentation, _latest.frame = segmentation, key
    return _latest.labels


def frame_ids(frame: Frame, segmentation: Segmentation) -> NDArray[np.uint16]:
    """The id of the instrument at every pixel of the frame as it is displayed, 0 for none: uint16 (height, width)."""
    return np.ascontiguousarray(np.rot90(ids_at(segmentation, frame.height, frame.width), frame.rotation // 90))
