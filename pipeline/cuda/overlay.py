"""The overlay of the `cuda` device: the same look, painted on the GPU, and brought to the host only when it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.color import Color
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.kernels.kernel_arguments import Stamp
from cliprl.pipeline.cuda.painting import (
    Canvas,
    blend_arguments,
    disc_spans,
    ink_table,
    margin_spans,
    trace_arguments,
    upsample_arguments,
)
from cliprl.pipeline.cuda.ring import Slot
from cliprl.pipeline.cuda.segmentation import CudaSegmentation
from cliprl.pipeline.cuda.upload import UploadBuffers
from cliprl.pipeline.overlay.blend import overlay_colors, patch_parts
from cliprl.pipeline.overlay.overlay import LEGEND_SHARE, Overlay, Style, corner
from cliprl.pipeline.overlay.text import Patch

if TYPE_CHECKING:
    from cliprl.pipeline.cuda.device import CudaDevice


class CudaOverlay(Overlay):
    """An `Overlay` for frames of the device's ring. After `draw` a frame's own planes, on the host, hold the painted picture."""

    def __init__(self, classes: Sequence[ClassSpec], style: Style | None = None, *, device: CudaDevice) -> None:
        self._cuda, self._stream = device, device.stream()
        self._staging = UploadBuffers(device.gpu, self._stream)
        self._drawn = device.gpu.event()
        self._size = (0, 0)
        self._told: tuple[Viewport, Color, Style] | None = None
        self._canvas = Canvas(0, 0, 0)
        super().__init__(classes, style)

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Paint the frame on the GPU and, if `to_host`, bring it back and wait for this frame alone: see `Overlay.draw`."""
        gpu, ring = self._cuda.gpu, self._cuda.frames
        slot = ring.own(frame, self._stream)
        if isinstance(segmentation, CudaSegmentation):
            gpu.wait(self._stream, segmentation.result.ready)
        super().draw(frame, segmentation, status)
        if self.to_host and (slot.filled or self.style.opacity > 0):
            gpu.copy(frame.luma, slot.luma, self._stream)
            gpu.copy(frame.chroma, slot.chroma, self._stream)
        ring.rewritten(frame, self._stream)
        gpu.record(self._drawn, self._stream)
        if self.to_host:
            gpu.synchronize(self._drawn)

    def _paint(self, frame: Frame, segmentation: Segmentation, color: Color) -> None:
        assert isinstance(segmentation, CudaSegmentation)
        gpu, result = self._cuda.gpu, segmentation.result
        size = (len(frame.chroma), frame.chroma.shape[1])
        self._tell(segmentation.view, color, size)
        probabilities, present = gpu.address(result.probabilities), gpu.address(result.present)
        grid = (len(self.classes), *segmentation.result.labels.shape)
        view = segmentation.view
        gpu.launch(upsample_arguments(view, grid, size, probabilities, present, self._canvas), self._stream)
        gpu.record(result.free, self._stream)
        contours = self.style.contour_width if self.style.contours else None
        gpu.launch(trace_arguments(size, contours, self._canvas), self._stream)
        planes = self._cuda.planes(self._slot(frame))
        gpu.launch(blend_arguments(planes, (frame.height, frame.width), self._canvas), self._stream)

    def _tell(self, view: Viewport, color: Color, size: tuple[int, int]) -> None:
        """Send what the kernels have to know of view, colours and style, where any is new."""
        if size != self._size:
            self._cuda.gpu.synchronize(self._drawn)  # the old memory is of no more use
            self._labels, self._map = (self._cuda.gpu.empty(size, np.uint8) for _ in range(2))
            self._size, self._told = size, None
        if self._told == (view, color, self.style):
            return
        inks = overlay_colors(self.classes, self._shown, self.style.opacity, color)
        tables = {
            "inks": ink_table(inks),
            "disc": disc_spans(view, *size),
            "margin": margin_spans(view, *size, self.style.contour_width),
        }
        sent = {name: 0 if table is None else self._staging.send(name, table) for name, table in tables.items()}
        labels, painted = (self._cuda.gpu.address(buffer) for buffer in (self._labels, self._map))
        self._canvas = Canvas(labels, painted, **sent)
        self._told = (view, color, self.style)

    def _present(self, segmentation: Segmentation) -> tuple[ClassSpec, ...]:
        assert isinstance(segmentation, CudaSegmentation)
        rows, columns = segmentation.result.labels.shape
        least = LEGEND_SHARE * rows * columns
        return tuple(self.classes[i] for i in sorted(self._shown) if segmentation.counts[i] > least)

    def _place(self, frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> None:
        """Stamp a patch; where it lies is worked out on the host's planes, which have the shape of the GPU's."""
        slot, gpu, turns = self._slot(frame), self._cuda.gpu, frame.rotation // 90
        parts = patch_parts(frame, patch, *corner(frame, patch, size, at_bottom=at_bottom))
        for kind, (part, keep, add) in enumerate(parts):
            plane, buffer = ((frame.luma, slot.luma), (frame.chroma, slot.chroma))[kind]
            # As it is stored, not as it is displayed.
            lying, tables = np.rot90(part, -turns), [np.rot90(table, -turns) for table in (keep, add)]
            offset = lying.__array_interface__["data"][0] - plane.__array_interface__["data"][0]
            names = (f"{name} {kind} {at_bottom}" for name in ("keep", "add"))
            sent = [self._staging.send(n, np.ascontiguousarray(t)) for n, t in zip(names, tables, strict=True)]
            target = gpu.address(buffer) + offset
            width = lying[0].size
            gpu.launch(Stamp(width, len(lying), target, plane.strides[0], 0, *sent), self._stream)

    def _slot(self, frame: Frame) -> Slot:
        return self._cuda.frames.slot_of(frame)
