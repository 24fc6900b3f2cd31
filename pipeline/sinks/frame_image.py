"""Conversion of a frame's planes to an image with correct colors, upright."""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.nv12 import check_frame, upright_size

Image = NDArray[np.uint8]
# libswscale's constants for color matrices, and for limited and full range.
_SPACES = {"bt601": 5, "bt709": 1, "bt2020": 9}
_LIMITED, _FULL = 1, 2
_PNG_COMPRESSION = 1


class FrameConverter:
    """Converts frames to BGR images. For one thread at a time."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()
        self._buffer: Any = None

    def convert(self, frame: Frame, planes: tuple[Plane, Plane], width: int, height: int) -> Image:
        """Return the image of `planes`, luma and chroma in the frame's format: uint8 (height, width, 3), BGR, upright."""
        buffer = self._load(*planes)
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

    def png(self, frame: Frame) -> bytes:
        """Encode the frame as it was before the overlay, in the size of its masks."""
        height, width = upright_size(frame)
        image = self.convert(frame, frame.original or (frame.luma, frame.chroma), width, height)
        return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_COMPRESSION])[1].tobytes()

    def _load(self, luma: Plane, chroma: Plane) -> Any:
        height, width = luma.shape
        if self._buffer is None or (self._buffer.height, self._buffer.width) != (height, width):
            self._buffer = av.VideoFrame(width, height, "nv12")
        first, second = (_rows(plane) for plane in self._buffer.planes)
        first[:height, :width] = luma
        rows, columns, _ = chroma.shape
        second[:rows, : 2 * columns] = chroma.reshape(rows, -1)
        return self._buffer


def image_of_frame(frame: Frame) -> Image:
    """Return a frame, with what was drawn into it, as an image uint8 (H, W, 3) RGB, upright."""
    check_frame(frame)
    height, width = upright_size(frame)
    return FrameConverter().convert(frame, (frame.luma, frame.chroma), width, height)[..., ::-1].copy()


def _rows(plane: Any) -> Image:
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
