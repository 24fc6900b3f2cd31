"""Motion between two images by dense optical flow, and maps sampled along it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Plane
from cliprl.pipeline.segment.temporal_prior import difference

Flow = NDArray[np.float32]

_PRESET = cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST
# Mean absolute difference (0..255) between a frame and the motion-compensated last frame above which there is a cut.
_CUT = 18.0


class FlowEstimator:
    """Measures dense optical flow (DIS) between successive small gray images.

    finest: how often the image is halved for the finest level on which motion is measured. cut: see `_CUT`.
    """

    def __init__(self, finest: int = 2, *, preset: int = _PRESET, cut: float = _CUT) -> None:
        self._dis, self._cut = cv2.DISOpticalFlow.create(preset), cut
        self._dis.setFinestScale(finest)
        self._last: Plane | None = None

    def __call__(self, small: Plane) -> Flow | None:
        """Return the flow from this image back to the last one: offsets (h, w, 2) in pixels.

        None for the first image, after a change of size, and at a cut.
        """
        last, self._last = self._last, small
        return None if last is None else self.between(last, small)

    def between(self, last: Plane, small: Plane) -> Flow | None:
        """Return the flow from `small` back to `last`; None if their sizes differ or there is a cut between them."""
        if last.shape != small.shape:
            return None
        nothing: Any = None  # an array here would be an initial estimate
        flow: Flow = np.asarray(self._dis.calc(small, last, nothing), np.float32)
        # A quarter of the pixels tells a cut.
        moved_last = _resampled(last, _positions(*small.shape)[::2, ::2] + flow[::2, ::2], cv2.INTER_LINEAR)
        return None if difference(moved_last, small[::2, ::2]) > self._cut else flow

    def reset(self) -> None:
        """Start anew, because the next image is unrelated."""
        self._last = None


def sampled(values: NDArray[Any], offsets: Flow, interpolation: int = cv2.INTER_LINEAR) -> NDArray[Any]:
    """Sample `values` (h, w, ...) at each pixel's position plus its offset."""
    return _resampled(values, _positions(*offsets.shape[:2]) + offsets, interpolation)


def _resampled(values: NDArray[Any], positions: Flow, interpolation: int) -> NDArray[Any]:
    """Sample `values` (h, w, ...) at positions (x, y), float32 (..., 2); beyond the edge, at the edge."""
    second: Any = None  # two maps, one of x and one of y, take longer
    return np.asarray(cv2.remap(values, positions, second, interpolation, borderMode=cv2.BORDER_REPLICATE))


@lru_cache(maxsize=8)
def _positions(height: int, width: int) -> Flow:
    """Return the position (x, y) of each pixel: float32 (height, width, 2), read-only."""
    positions = np.ascontiguousarray(np.indices((height, width), np.float32)[::-1].transpose(1, 2, 0))
    positions.setflags(write=False)
    return positions
