"""The out-of-body guard: once the scope has left the body, it sees the room and the people in it.

The cue is measured, not learned: inside a body nearly everything that is lit is red, by the blood in it and by the scope's own
light; drapes, gloves, walls, paper and metal are not, and skin in room light is more yellow than red. A red thing that fills
the picture fools it, and so does a picture filled by grey instruments, the other way.
"""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from cliprl.pipeline.core.frame import Frame, Plane

# A pixelated picture has so many blocks along its longer side: no face can be told at any distance.
BLOCKS = 24
# A pixel is red where (Cr - |Cb| / 2) / Y is above this, all counted from their zero; lit where Y is above this share of white.
_REDNESS, _LIT = 0.12, 0.11
# The picture shows the inside of a body from this share of red among the lit pixels on, and no longer does below the lower.
ENTER, LEAVE = 0.45, 0.35
# Seconds over which the share is averaged, and the share of the picture that must be lit for a judgement.
_MEMORY, _FEWEST = 0.4, 0.02
# Lines and columns of chroma that are looked at: every n-th, so that about so many are left of the shorter side.
_LINES = 45


def pixelated(frame: Frame) -> Frame:
    """A copy of `frame` in blocks of one colour each; the frame itself is not touched. Times and tags are shared."""
    luma, chroma = (_blocks(plane) for plane in (frame.luma, frame.chroma))
    return replace(frame, luma=luma, chroma=chroma, slot=-1)


def _blocks(plane: Plane) -> Plane:
    height, width = plane.shape[:2]
    longer = max(height, width)
    size = (max(round(BLOCKS * width / longer), 1), max(round(BLOCKS * height / longer), 1))
    small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def red_share(frame: Frame) -> float | None:
    """Share of red pixels among the lit ones, 0..1, from a sparse grid of samples; None where too little is lit to tell."""
    step = max(min(frame.chroma.shape[:2]) // _LINES, 1)
    rows, columns = frame.height // 2, frame.width // 2
    luma = frame.luma[: 2 * rows : 2 * step, : 2 * columns : 2 * step].astype(np.float32)
    chroma = frame.chroma[:rows:step, :columns:step].astype(np.float32) - 128
    black, white = (0, 255) if frame.color.full_range else (16, 219)
    lit = luma - black > _LIT * white
    if lit.mean() < _FEWEST:
        return None
    cb, cr = chroma[..., 0][lit], chroma[..., 1][lit]
    return float((cr - np.abs(cb) / 2 > _REDNESS * (luma[lit] - black)).mean())


class BodyGuard:
    """Tells from frame to frame whether the scope is out of the body. It changes its mind only for what lasts.

    Before the first picture that can be judged it says out: what is not known to be a body is not shown around.
    """

    def __init__(self) -> None:
        self._out = True
        self._share: float | None = None
        self._last = 0.0

    def update(self, frame: Frame) -> bool:
        """Whether the scope is out of the body at this frame. Frames in their order; their capture times count."""
        now, found = frame.times.get("captured", frame.seconds), red_share(frame)
        if found is None:  # darkness shows nobody
            return self._out
        if self._share is None:
            self._share, self._out = found, found < (ENTER + LEAVE) / 2
        else:
            weight = 1 - math.exp(-max(now - self._last, 0.0) / _MEMORY)
            self._share += weight * (found - self._share)
            self._out = self._share < (ENTER if self._out else LEAVE)
        self._last = now
        return self._out
