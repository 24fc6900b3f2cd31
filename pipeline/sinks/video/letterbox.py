"""Letterboxing of frames whose size differs from that of the output."""

from __future__ import annotations

import cv2

from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Plane, allocate_planes


def letterbox(
    luma: Plane, chroma: Plane, height: int, width: int, color: ColorSpace, stretch: float = 1
) -> tuple[Plane, Plane]:
    """Scale NV12 planes into the middle of a black frame of `height` x `width`, aspect kept.

    `stretch` is how much wider their pixels are than those of the new frame. Offsets and sizes are even, so that luma and
    chroma stay on each other.
    """
    displayed = luma.shape[1] * stretch
    scale = min(height / len(luma), width / displayed)
    inner_height, inner_width = _even(len(luma) * scale, height), _even(displayed * scale, width)
    top, left = (height - inner_height) // 4 * 2, (width - inner_width) // 4 * 2
    new_luma, new_chroma = allocate_planes(height, width)
    new_luma[:] = 0 if color.full_range else 16
    new_chroma[:] = 128
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    new_luma[top : top + inner_height, left : left + inner_width] = cv2.resize(
        luma, (inner_width, inner_height), interpolation=method
    )
    half = ((inner_height + 1) // 2, (inner_width + 1) // 2)
    new_chroma[top // 2 : top // 2 + half[0], left // 2 : left // 2 + half[1]] = cv2.resize(
        chroma, (half[1], half[0]), interpolation=method
    )
    return new_luma, new_chroma


def _even(length: float, room: int) -> int:
    """The nearest even length of at least 2, or all of the room."""
    return min(max(round(length / 2) * 2, 2), room)
