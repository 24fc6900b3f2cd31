"""Conversion of frames for display: RGB with correct colors, upright, with square pixels, at a limited size."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame

Image = NDArray[np.uint8]
# The longer side of images for browsers, in pixels; larger frames are scaled down.
LONGEST = 1920
JPEG_QUALITY = 85
# libswscale's constants for color matrices, and for limited and full range.
_SPACES = {"bt601": 5, "bt709": 1, "bt2020": 9}
_LIMITED, _FULL = 1, 2


class ImageConverter:
    """Converts frames to BGR images. For one thread at a time."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._buffer: Any = None

    def bgr(self, frame: Frame, longest: int = LONGEST) -> Image:
        """Return the frame as displayed: uint8 (h, w, 3), BGR, both sides even and at most `longest` pixels."""
        buffer = self._load(frame)
        width, height = display_size(frame, longest)
        turned = frame.rotation % 180 != 0
        space = _SPACES[frame.color.matrix]
        converted = self._reformatter.reformat(
            buffer,
            height if turned else width,
            width if turned else height,
            "bgr24",
            src_colorspace=space,
            dst_colorspace=space,
            src_color_range=_FULL if frame.color.full_range else _LIMITED,
            dst_color_range=_FULL,
        )
        image = np.asarray(converted.to_ndarray(), np.uint8)
        return np.ascontiguousarray(np.rot90(image, frame.rotation // 90)) if frame.rotation else image

    def _load(self, frame: Frame) -> Any:
        if self._buffer is None or (self._buffer.height, self._buffer.width) != frame.luma.shape:
            self._buffer = av.VideoFrame(frame.width, frame.height, "nv12")
        luma, chroma = (_rows(plane) for plane in self._buffer.planes)
        luma[: frame.height, : frame.width] = frame.luma
        rows, columns, _ = frame.chroma.shape
        chroma[:rows, : 2 * columns] = frame.chroma.reshape(rows, -1)
        return self._buffer


def _rows(plane: Any) -> Image:
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


def display_size(frame: Frame, longest: int = LONGEST) -> tuple[int, int]:
    """Return (width, height) of the upright frame with square pixels, fitted into `longest`; both are even."""
    width, height = float(frame.width * (frame.sample_aspect or 1)), float(frame.height)
    if frame.rotation % 180:
        width, height = height, width
    scale = min(1.0, longest / max(width, height))
    return max(round(width * scale / 2) * 2, 2), max(round(height * scale / 2) * 2, 2)


def jpeg(image: Image, quality: int = JPEG_QUALITY) -> bytes:
    """Encode a BGR image as JPEG (JFIF: full-range BT.601)."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def png(frame: Frame) -> bytes:
    """Encode a frame as PNG, as displayed, at its full size."""
    image = ImageConverter().bgr(frame, longest=1 << 14)
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()
