"""Frames, sizes and boxes as a viewer sees them: turned by the frame's rotation."""

from __future__ import annotations

from dataclasses import replace

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.nv12 import turn
from cliprl.pipeline.core.viewport import Box


def upright_size(picture: Frame | StreamInfo) -> tuple[int, int]:
    """Height and width of the displayed picture."""
    size = (picture.height, picture.width)
    return size[::-1] if picture.rotation % 180 else size


def upright_box(box: Box, frame: Frame) -> Box:
    """A box (left, top, width, height) in the frame's planes, where it lies in the displayed picture."""
    left, top, width, height = box
    right, bottom = frame.width - left - width, frame.height - top - height
    if frame.rotation == 90:
        return top, right, height, width
    if frame.rotation == 180:
        return right, bottom, width, height
    if frame.rotation == 270:
        return bottom, left, height, width
    return box


def upright(frame: Frame) -> Frame:
    """The frame itself where it needs no turning; else a copy, turned, with planes that belong to no slot."""
    if not frame.rotation:
        return frame
    luma, chroma = turn(frame.luma, frame.chroma, mirrored=False, turns=frame.rotation // 90)
    aspect = 1 / frame.sample_aspect if frame.sample_aspect and frame.rotation % 180 else frame.sample_aspect
    return replace(frame, luma=luma, chroma=chroma, rotation=0, sample_aspect=aspect, slot=-1)
