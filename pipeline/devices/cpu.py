"""The `cpu` device: frames in ordinary memory, OpenCV for the pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, ClassSpec, ignore_message
from cliprl.pipeline.core.buffers import BufferPool
from cliprl.pipeline.core.color import Color, yuv_to_rgb_matrix
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.core.ring_buffer import FrameRing, Policy
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.overlay.overlay import Overlay, Style
from cliprl.pipeline.segment.segmenter import Segmenter

if TYPE_CHECKING:
    from cliprl.pipeline.sources import FrameSource


class CpuDevice:
    """The operations that touch pixels, on the CPU. Not for use by two threads at once."""

    name = "cpu"
    notes: tuple[str, ...] = ()
    ranges: Callable[[str], AbstractContextManager[object]] | None = None

    def __init__(self) -> None:
        self._scratch = BufferPool()

    def source(
        self, name: str, say: Callable[[str], None] = ignore_message, *, stream: int | None = None
    ) -> FrameSource:
        """`open_source`: libav decodes on the CPU."""
        from cliprl.pipeline.sources import open_source

        return open_source(name, stream=stream)

    def sink(self, target: str, scene: OutputSpec, **settings: Any) -> Sink:
        """`open_sink`: libav encodes on the CPU."""
        from cliprl.pipeline.sinks import open_sink

        return open_sink(target, scene, **settings)

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """A ring of preallocated slots in ordinary memory."""
        return FrameRing(slots, policy)

    def settle(self) -> None:
        """Nothing to wait for: what a CPU was given is done when the call returns."""

    def prepare(self, frame: Frame, view: Viewport, out: NDArray[np.uint8]) -> None:
        """Write the network's RGB picture, uint8 (network_height, network_width, 3), straight from the frame's planes.

        The view's crop is shrunk without aliasing, plane by plane, and only then converted by the frame's own matrix and
        range. The padding and what lies outside the endoscope's circle (text in the corners) is black. Chroma counts as
        lying in the middle of its four luma pixels: where it lies on their left, it is off by an eighth of a pixel of the
        network's picture or less.
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

    def segmenter(self, bundle: Bundle, **settings: Any) -> Segmenter:
        """A segmenter on the CPU."""
        return Segmenter(bundle, device=self, **settings)

    def overlay(self, classes: Sequence[ClassSpec], style: Style | None = None) -> Overlay:
        """An overlay painted by the CPU."""
        return Overlay(classes, style)

    def _shrink(self, plane: Plane, size: tuple[int, int], name: str) -> NDArray[np.uint16]:
        """Scale to `size` (width, height), in 256ths: halve while there are two pixels or more to one, then bilinearly.

        That is as free of aliasing as an area average, and ten times as fast. The last two steps work in 256ths, so that
        rounding does not add up.
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
        """Convert Y, Cb and Cr in 256ths to RGB (h, w, 3), rounded and clipped to uint8."""
        matrix, offset = yuv_to_rgb_matrix(color.matrix, color.full_range)
        shape = (*planes[0].shape, 3)
        yuv, fine = self._scratch.array("YCbCr", shape, np.uint16), self._scratch.array("RGB fine", shape, np.uint16)
        rgb: NDArray[np.uint8] = self._scratch.array("RGB", shape)
        cv2.merge(planes, yuv)
        cv2.transform(yuv, np.hstack([matrix, offset[:, None] * 256]), fine)
        return np.asarray(cv2.convertScaleAbs(fine, rgb, 1 / 256), np.uint8)


def open_device(say: Callable[[str], None] = ignore_message) -> CpuDevice:
    """The CPU, which is always there and says nothing."""
    return CpuDevice()


def _cut(frame: Frame, view: Viewport) -> tuple[Plane, Plane]:
    """The view's crop of both planes, as views of them. Crops begin at even pixels."""
    left, top, width, height = view.crop
    luma = frame.luma[top : top + height, left : left + width]
    return luma, frame.chroma[top // 2 : (top + height + 1) // 2, left // 2 : (left + width + 1) // 2]


def _factor(plane: Plane, size: tuple[int, int]) -> float:
    """How many of the plane's pixels fall on one of `size`, along the axis that shrinks least."""
    height, width = plane.shape[:2]
    return float(min(width / size[0], height / size[1]))
