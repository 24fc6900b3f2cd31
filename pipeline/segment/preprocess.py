"""Makes the network input from the NV12 planes of a frame, on the CPU with OpenCV."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.color import Color, yuv_to_rgb_matrix
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.viewport import Viewport, inside_cells


class CpuPreprocessor:
    """The `Preprocessor` of the CPU. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._scratch = BufferPool()

    def prepare(self, frame: Frame, view: Viewport, out: NDArray[np.uint8]) -> None:
        """Write the network input, RGB uint8 (network_height, network_width, 3), from the planes of the frame.

        The crop of the view is scaled down plane by plane without aliasing, then converted with the matrix and range of the
        frame. The padding and the area outside the endoscope's circle (text in the corners) are black. Chroma is assumed in the
        center of its four luma pixels; for chroma sited on the left the error is at most an eighth of a network pixel.
        """
        left, top, width, height = view.placed
        luma, chroma = _cut(frame, view)
        planes = [luma, *(np.asarray(plane, np.uint8) for plane in cv2.split(chroma))]
        small = [
            self._shrink(plane, (width, height), name) for plane, name in zip(planes, ["Y", "Cb", "Cr"], strict=True)
        ]
        rgb = self._to_rgb(small, frame.color)
        placed = out[top : top + height, left : left + width]
        out.fill(0)
        if view.circle is None:
            np.copyto(placed, rgb)
        else:
            inside = inside_cells(view, view.network_height, view.network_width)
            mask = inside[top : top + height, left : left + width].astype(np.uint8)
            np.copyto(placed, cv2.bitwise_and(rgb, rgb, mask=mask))

    def _shrink(self, plane: Plane, size: tuple[int, int], name: str) -> NDArray[np.uint16]:
        """Scale to `size` (width, height), in 256ths: halve while the factor is 2 or more, then interpolate bilinearly.

        This has as little aliasing as an area average and is ten times as fast. The last two steps work in 256ths, so that
        rounding errors do not add up.
        """
        halvings = int(math.log2(max(_factor(plane, size), 1)))
        for i in range(halvings - 1):
            plane = self._halve(plane, f"{name} {i}")
        fine = self._scratch.array(f"{name} fine", plane.shape, np.uint16)
        np.multiply(plane, 256, out=fine, dtype=np.uint16)
        if halvings:
            fine = self._halve(fine, f"{name} half")
        small: NDArray[np.uint16] = self._scratch.array(f"{name} small", (size[1], size[0]), np.uint16)
        cv2.resize(fine, size, small, interpolation=cv2.INTER_LINEAR)
        return small

    def _halve(self, plane: NDArray[Any], name: str) -> NDArray[Any]:
        shape = ((len(plane) + 1) // 2, (plane.shape[1] + 1) // 2)
        half = self._scratch.array(name, shape, plane.dtype)
        cv2.resize(plane, shape[::-1], half, interpolation=cv2.INTER_AREA)
        return half

    def _to_rgb(self, planes: list[NDArray[np.uint16]], color: Color) -> NDArray[np.uint8]:
        """Convert Y, Cb and Cr in 256ths to RGB uint8 (h, w, 3), rounded and clipped."""
        matrix, offset = yuv_to_rgb_matrix(color.matrix, color.full_range)
        shape = (*planes[0].shape, 3)
        yuv, fine = self._scratch.array("YCbCr", shape, np.uint16), self._scratch.array("RGB fine", shape, np.uint16)
        rgb: NDArray[np.uint8] = self._scratch.array("RGB", shape)
        cv2.merge(planes, yuv)
        cv2.transform(yuv, np.hstack([matrix, offset[:, None] * 256]), fine)
        return np.asarray(cv2.convertScaleAbs(fine, rgb, 1 / 256), np.uint8)


def _cut(frame: Frame, view: Viewport) -> tuple[Plane, Plane]:
    """Return the crop of the view as views of both planes. Crops start at even pixels."""
    left, top, width, height = view.crop
    luma = frame.luma[top : top + height, left : left + width]
    return luma, frame.chroma[top // 2 : (top + height + 1) // 2, left // 2 : (left + width + 1) // 2]


def _factor(plane: Plane, size: tuple[int, int]) -> float:
    """Return the scale factor from the plane down to `size`, along the axis that shrinks least."""
    height, width = plane.shape[:2]
    return float(min(width / size[0], height / size[1]))
