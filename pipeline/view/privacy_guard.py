"""The out-of-body guard: detects that the endoscope shows the room and the people in it instead of the inside of a body.

The criterion is the share of red among lit pixels. Inside a body nearly everything is red because of blood; drapes, gloves,
walls, paper and metal are not, and skin in room light is more yellow than red. A red object that fills the image is mistaken
for a body, and an image filled by gray instruments for the room.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame, Plane

# Blocks along the longer side of a pixelated frame: too few to recognize a face at any distance.
BLOCKS = 24
# A pixel is red if (Cr - |Cb| / 2) / Y exceeds the first value (each relative to its zero), and lit if Y exceeds the second
# as a share of white.
_REDNESS, _LIT = 0.12, 0.11
# Shares of red among lit pixels at or above which the frame shows a body, and below which it no longer does.
ENTER, LEAVE = 0.45, 0.35
# Time constant of the average in seconds, and the least lit share of the frame for a decision.
_TIME_CONSTANT, _LEAST_LIT = 0.4, 0.02
# Chroma samples along the shorter side that are examined, approximately.
_LINES = 45


def pixelated(frame: Frame) -> Frame:
    """Return a copy of `frame` in blocks of uniform color. Times and tags are shared with the frame."""
    luma, chroma = (_blocks(plane) for plane in (frame.luma, frame.chroma))
    return replace(frame, luma=luma, chroma=chroma, slot=-1)


def _blocks(plane: Plane) -> Plane:
    height, width = plane.shape[:2]
    longer = max(height, width)
    size = (max(round(BLOCKS * width / longer), 1), max(round(BLOCKS * height / longer), 1))
    small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def red_share(frame: Frame, painted: NDArray[np.bool_] | None = None) -> float | None:
    """Return the share of red among lit pixels, 0..1, on a sparse grid; None if too few pixels are lit.

    painted: bool (height, width), pixels that an overlay has drawn on and that don't count, at any size.
    """
    step = max(min(frame.chroma.shape[:2]) // _LINES, 1)
    rows, columns = frame.height // 2, frame.width // 2
    luma = frame.luma[: 2 * rows : 2 * step, : 2 * columns : 2 * step].astype(np.float32)
    chroma = frame.chroma[:rows:step, :columns:step].astype(np.float32) - 128
    black, white = (0, 255) if frame.color.full_range else (16, 219)
    lit = luma - black > _LIT * white
    if not lit.size:  # a single line or column has no whole sample of color
        return None
    if painted is not None:
        size = (lit.shape[1], lit.shape[0])
        lit &= cv2.resize(painted.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) == 0
    if lit.mean() < _LEAST_LIT:
        return None
    cb, cr = chroma[..., 0][lit], chroma[..., 1][lit]
    return float((cr - np.abs(cb) / 2 > _REDNESS * (luma[lit] - black)).mean())


class BodyGuard:
    """Decides for each frame whether the endoscope is outside the body, with averaging and hysteresis.

    Until the first frame that allows a decision it is considered outside: unknown content is not shared.
    """

    def __init__(self) -> None:
        self._out = True
        self._share: float | None = None
        self._last = 0.0

    def update(self, frame: Frame, painted: NDArray[np.bool_] | None = None) -> bool:
        """Return whether the endoscope is outside the body at this frame. Frames come in order, with capture times.

        painted: see `red_share`; then the time of a frame is its presentation time.
        """
        captured = None if painted is not None else frame.times.get("captured")
        now, found = frame.seconds if captured is None else captured, red_share(frame, painted)
        if found is None:  # a dark frame shows no person
            return self._out
        if self._share is None:
            self._share, self._out = found, found < (ENTER + LEAVE) / 2
        else:
            weight = 1 - math.exp(-max(now - self._last, 0.0) / _TIME_CONSTANT)
            self._share += weight * (found - self._share)
            self._out = self._share < (ENTER if self._out else LEAVE)
        self._last = now
        return self._out
