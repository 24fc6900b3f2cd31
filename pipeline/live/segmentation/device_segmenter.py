"""Segment frames of host memory on a device that the worker process alone uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from cliprl.engines import Bundle
from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation

_SLOTS = 2


class RingSegmenter(Protocol):
    """A segmenter of frames that lie in its device's ring."""

    def ring(self, slots: int, policy: Policy) -> FrameRing: ...  # noqa: D102

    def __call__(self, frame: Frame) -> Segmentation: ...  # noqa: D102


class DeviceFactory(Protocol):
    """The part of a device that makes its segmenter."""

    def segmenter(self, bundle: Bundle, **settings: Any) -> RingSegmenter: ...  # noqa: D102


class HostFrameSegmenter:
    """Segment one frame at a time: upload it, segment it, return a segmentation in host memory, which can be pickled."""

    def __init__(self, segmenter: RingSegmenter) -> None:
        self._segmenter = segmenter
        self._ring = segmenter.ring(_SLOTS, "wait")

    def __call__(self, frame: Frame) -> Segmentation:
        """Segment a frame. Its planes are copied first, and may change afterwards."""
        luma, chroma = self._ring.acquire(frame.height, frame.width)
        np.copyto(luma, frame.luma)
        np.copyto(chroma, frame.chroma)
        self._ring.publish(replace(frame, luma=luma, chroma=chroma))
        taken = self._ring.take()
        assert taken is not None
        try:
            found = self._segmenter(taken)
            host = Segmentation(
                found.labels, found.probabilities, found.view, found.confidence, found.steps, found.moved
            )
            host.model, host.colors, host.unmerged, host.parts = found.model, found.colors, found.unmerged, found.parts
            return host
        finally:
            self._ring.release(taken)


def open_device_segmenter(
    open_device: Callable[[], DeviceFactory], bundle: Bundle, **settings: Any
) -> HostFrameSegmenter:
    """Open a device and its segmenter, in the process that is to segment. Settings as for `Segmenter`."""
    return HostFrameSegmenter(open_device().segmenter(bundle, **settings))
