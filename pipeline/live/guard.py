"""The out-of-body guard: once the scope has left the body, it sees the room and the people in it."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.pipeline.frame import Frame, Plane

# A pixelated picture has so many blocks along its longer side: no face can be told at any distance.
BLOCKS = 24


def pixelated(frame: Frame) -> Frame:
    """A copy of `frame` in blocks of one colour each; the frame itself is not touched. Times and tags are shared."""
    luma, chroma = (_blocks(plane) for plane in (frame.luma, frame.chroma))
    copy = Frame(luma, chroma, frame.pts, frame.time_base, frame.index, frame.color, frame.duration, frame.rotation)
    copy.sample_aspect, copy.interlaced, copy.damaged = frame.sample_aspect, frame.interlaced, frame.damaged
    copy.times, copy.durations = frame.times, frame.durations
    return copy


def _blocks(plane: Plane) -> Plane:
    height, width = plane.shape[:2]
    longer = max(height, width)
    size = (max(round(BLOCKS * width / longer), 1), max(round(BLOCKS * height / longer), 1))
    small = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
