"""Motion over several frames, measured by optical flow on small copies, and masks moved along with it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.segmentation import Instances, Segmentation
from cliprl.pipeline.core.viewport import Viewport, frame_to_network, inside_cells, network_to_frame
from cliprl.pipeline.segment.motion import Flow, FlowEstimator, sampled

# The longer side of the copies, in pixels. Flow takes 1-2 ms per frame at any frame size.
_LONGER = 256
# Motion is measured on blocks of this many pixels of the copies (2 ** `finest`), so that the steps keep one value for each.
_BLOCK = 4
# Frames whose motion is kept.
_MEMORY = 32


class _Step(NamedTuple):
    """The flow from frame `number` back to the frame before, as offsets in blocks; None at a cut."""

    number: int
    flow: Flow | None


class DelayedFlow:
    """Measures the motion between the small images of a stream when it is needed, and keeps the last images until then.

    most: steps that are kept. They take about 0.1 ms each when they are measured.
    """

    def __init__(self, most: int) -> None:
        self._estimate = FlowEstimator(finest=1)
        self._images: deque[Plane] = deque(maxlen=most + 1)

    def add(self, small: Plane) -> None:
        """Take the next image."""
        self._images.append(small)

    def clear(self) -> None:
        """Forget all images, because no motion since then will be needed."""
        self._images.clear()

    def steps(self, *, newest: bool) -> list[Flow | None]:
        """Return the flow from each image back to the one before it, since the last call; only the last with `newest`.

        See `FlowEstimator.between`. Empty before the second image.
        """
        pairs = list(pairwise(self._images))[-1 if newest else 0 :]
        while len(self._images) > 1:
            self._images.popleft()
        return [self._estimate.between(*pair) for pair in pairs]


class OpticalFlow:
    """Tracks the motion in one stream by the optical flow between small copies of successive frames."""

    def __init__(self) -> None:
        self._estimate = FlowEstimator()
        self._steps: deque[_Step] = deque(maxlen=_MEMORY)

    def add(self, number: int, frame: Frame) -> None:
        """Measure the motion from the last frame to this one. Numbers ascend."""
        flow = self._estimate(_small(frame.luma))
        self._steps.append(_Step(number, None if flow is None else _in_blocks(flow)))

    def forget(self) -> None:
        """Start anew, because the next frame is unrelated."""
        self._estimate.reset()

    def back_to(self, number: int) -> Flow | None:
        """Return the flow from the newest frame back to frame `number`: offsets (h, w, 2) in blocks, one for each block.

        None if that frame is no longer kept, or lies before a cut.
        """
        total: Flow | None = None
        for step in reversed(self._steps):
            if step.number <= number:
                return total if step.number == number else None
            if step.flow is None:
                return None
            total = step.flow if total is None else total + sampled(step.flow, total)
        return None


def _small(luma: Plane) -> Plane:
    scale = min(_LONGER / max(luma.shape), 1.0)
    size = (max(round(luma.shape[1] * scale), 16), max(round(luma.shape[0] * scale), 16))
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)


def _in_blocks(flow: Flow) -> Flow:
    """Return the mean offset of each block, in blocks: steps are then added up in a sixteenth of the time."""
    height, width = flow.shape[:2]
    size = (max(width // _BLOCK, 1), max(height // _BLOCK, 1))
    means = cv2.resize(flow, size, interpolation=cv2.INTER_AREA)
    return np.asarray(means * np.array([size[0] / width, size[1] / height], np.float32), np.float32)


def moved(segmentation: Segmentation, flow: Flow) -> Segmentation:
    """Move the segmentation of an earlier frame onto a later one along `flow` (see `OpticalFlow.back_to`)."""
    return _moved_by(segmentation, flow_on_grid(flow, segmentation.view, *segmentation.labels.shape))


def _moved_by(segmentation: Segmentation, offsets: Flow) -> Segmentation:
    rows, columns = segmentation.labels.shape
    present = np.flatnonzero(np.bincount(segmentation.labels.ravel()))
    probabilities = np.zeros_like(segmentation.probabilities)
    for class_id in present:
        probabilities[class_id] = sampled(segmentation.probabilities[class_id], offsets)
    winners = present[probabilities[present].argmax(axis=0)]
    labels = np.where(inside_cells(segmentation.view, rows, columns), winners, 0).astype(np.uint8)
    instances = segmentation.instances and _moved_instances(segmentation.instances, labels, offsets)
    unmerged = segmentation.unmerged and _moved_by(segmentation.unmerged, offsets)
    return replace(segmentation, labels=labels, probabilities=probabilities, instances=instances, unmerged=unmerged)


def _moved_instances(instances: Instances, labels: NDArray[np.uint8], offsets: Flow) -> Instances:
    """Move the map of ids to the nearest cells; an instrument that has left the image is dropped."""
    ids = np.where(labels > 0, sampled(instances.ids, offsets, cv2.INTER_NEAREST), 0).astype(np.uint16)
    present = set(np.unique(ids).tolist())
    return Instances(ids, tuple(item for item in instances.items if item.id in present), instances.followed)


def flow_on_grid(flow: Flow, view: Viewport, rows: int, columns: int) -> Flow:
    """Convert flow on a small copy of the frame, in its pixels, to offsets in grid cells at their centers: (rows, columns, 2)."""
    height, width = flow.shape[:2]
    to_copy = np.array([width / view.frame_width, height / view.frame_height])
    cell = np.array([view.network_width / columns, view.network_height / rows])
    to_frame = network_to_frame(view)
    scale = to_frame.diagonal() * cell * to_copy
    # Maps the center of a cell, half a cell from its corner, to a sample index, half a pixel from the corner of the copy.
    start = to_frame[:, 2] * to_copy + scale / 2 - 0.5
    matrix = np.array([[scale[0], 0, start[0]], [0, scale[1], start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    on_grid = cv2.warpAffine(flow, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(on_grid * (frame_to_network(view).diagonal() / to_copy / cell), np.float32)
