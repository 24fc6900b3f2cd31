"""Draw the overlay on the GPU with the CPU's result, and copy finished frames to the host where outputs need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.context import GpuContext
from cliprl.pipeline.cuda.geometry import Planes, line_spans
from cliprl.pipeline.cuda.kernels.kernel_arguments import Blend, StampPatch, TraceContours, Upsample
from cliprl.pipeline.cuda.ring import Slot
from cliprl.pipeline.cuda.segmentation import CudaSegmentation
from cliprl.pipeline.cuda.upload import UploadBuffers
from cliprl.pipeline.overlay.overlay import LEGEND_SHARE, Overlay, contour_radius, corner, patch_parts
from cliprl.pipeline.overlay.style import LABEL_LUMA, OverlayColors, Style, overlay_colors
from cliprl.pipeline.overlay.text import Patch
from cliprl.pipeline.overlay.upsample import grid_spans, image_mask


@dataclass(frozen=True, slots=True)
class OverlayBuffers:
    """Addresses of the overlay's memory: labels and map, uint8 of the chroma's size, and tables of the view.

    `disc` and `margin` are `disc_spans` and `margin_spans`, 0 where there are none; `inks` uint16 (4, 256).
    """

    labels: int
    map: int
    inks: int
    disc: int = 0
    margin: int = 0


@dataclass(frozen=True, slots=True)
class _PlacedPatch:
    """A patch on the GPU, for frames of one form (height, width, rotation): a launch for luma and one for chroma.

    `offsets` are the bytes from a plane's start to the patch's corner.
    """

    patch: Patch
    form: tuple[int, int, int]
    stamps: list[StampPatch]
    offsets: list[int]


def disc_spans(view: Viewport, height: int, width: int) -> NDArray[np.int32] | None:
    """Return the part of each chroma line inside the field of view, int32 (height, 2); None where that is the whole frame."""
    return None if view.circle is None else line_spans(image_mask(view, height, width))


def margin_spans(view: Viewport, height: int, width: int, contour_width: float) -> NDArray[np.int32] | None:
    """Return the part of each line where contours may be, away from the edge of the field of view; None where it has none."""
    if view.circle is None and view.crop[2:] == (view.frame_width, view.frame_height):
        return None
    return line_spans(image_mask(view, height, width, margin=contour_radius(contour_width, height) + 2))


def ink_table(inks: OverlayColors) -> NDArray[np.uint16]:
    """Stack the factor on a pixel and the terms added to Y, Cb and Cr: uint16 (4, 256)."""
    return np.stack([inks.keep, *inks.add])


def upsample_arguments(
    view: Viewport,
    grid: tuple[int, int, int],
    size: tuple[int, int],
    probabilities: int,
    present: int,
    buffers: OverlayBuffers,
) -> Upsample:
    """Return the arguments of `upsample`: a grid of (classes, rows, columns) onto chroma of `size` (height, width)."""
    classes, rows, columns = grid
    height, width = size
    x, y = grid_spans(view, (rows, columns), height, width)
    cells = (x.cells.stop - x.cells.start, y.cells.stop - y.cells.start)
    target = (x.target.start, y.target.start, x.target.stop - x.target.start, y.target.stop - y.target.start)
    numbers = (classes, rows, columns, x.cells.start, y.cells.start, *cells, *target, x.part.start, y.part.start, 0)
    steps = (cells[0] / x.length, cells[1] / y.length)
    return Upsample(width, height, probabilities, present, *numbers, *steps, buffers.disc, buffers.labels)


def trace_arguments(size: tuple[int, int], contour_width: float | None, buffers: OverlayBuffers) -> TraceContours:
    """Return the arguments of `trace` on chroma of `size` (height, width); `contour_width` None draws no contours."""
    core = core_diagonal = soft = soft_diagonal = 0
    if contour_width is not None:
        core = contour_radius(contour_width, size[0])
        # Cross, then square and cross in turn: squares reach out by two along the diagonal, crosses by one.
        core_diagonal = 1 + sum(2 if i % 2 else 1 for i in range(1, core))
        soft, soft_diagonal = core + 1, core_diagonal + (2 if core % 2 else 1)
    octagons = (core, core_diagonal, soft, soft_diagonal, LABEL_LUMA, 0)
    return TraceContours(size[1], size[0], buffers.labels, buffers.margin, *octagons, buffers.map)


def blend_arguments(planes: Planes, frame: tuple[int, int], buffers: OverlayBuffers) -> Blend:
    """Return the arguments of `blend` into the planes of a frame of (height, width)."""
    (luma, luma_pitch), (chroma, chroma_pitch) = planes
    height, width = frame
    half = ((width + 1) // 2, (height + 1) // 2)
    return Blend(*half, luma, chroma, luma_pitch, chroma_pitch, width, height, buffers.map, buffers.inks)


class CudaOverlay(Overlay):
    """An `Overlay` for frames of the device's ring. After `draw` a frame's planes on the host hold the result."""

    def __init__(self, classes: Sequence[ClassSpec], style: Style | None = None, *, context: GpuContext) -> None:
        self._cuda, self._stream = context, context.stream(urgent=True)
        self._uploads = UploadBuffers(context.gpu, self._stream)
        self._patches: dict[bool, _PlacedPatch] = {}
        self._size = (0, 0)
        self._prepared: tuple[Viewport, ColorSpace, Style] | None = None
        self._buffers = OverlayBuffers(0, 0, 0)
        self._arguments: tuple[Upsample, TraceContours, Blend] | None = None
        super().__init__(classes, style)

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Draw on the GPU and, if `to_host`, copy the planes to the host and wait for this frame only: see `Overlay.draw`."""
        gpu, ring = self._cuda.gpu, self._cuda.frames
        slot = ring.own(frame, self._stream)
        if isinstance(segmentation, CudaSegmentation):
            gpu.wait(self._stream, segmentation.result.ready)
        super().draw(frame, segmentation, status)
        if self.to_host and (slot.filled or self.style.opacity > 0):
            gpu.copy(slot.pinned, slot.memory, self._stream)
        ring.rewritten(frame, self._stream)
        if self.to_host:
            gpu.synchronize(slot.ready)
            slot.idle = True

    def _paint(self, frame: Frame, segmentation: Segmentation, color: ColorSpace) -> None:
        assert isinstance(segmentation, CudaSegmentation)
        gpu, result = self._cuda.gpu, segmentation.result
        size = (len(frame.chroma), frame.chroma.shape[1])
        self._prepare_tables(segmentation.view, color, size)
        upsample, trace, blend = self._launches(segmentation, frame)
        upsample.probabilities, upsample.present = gpu.address(result.probabilities), gpu.address(result.present)
        gpu.launch(upsample, self._stream)
        gpu.record(result.free, self._stream)
        gpu.launch(trace, self._stream)
        (blend.luma, _), (blend.chroma, _) = self._cuda.planes(self._slot(frame))
        gpu.launch(blend, self._stream)

    def _launches(self, segmentation: CudaSegmentation, frame: Frame) -> tuple[Upsample, TraceContours, Blend]:
        """Return the arguments of the launches, made anew with the tables. The caller sets the addresses of the frame."""
        if self._arguments is None:
            size, form = (len(frame.chroma), frame.chroma.shape[1]), (frame.height, frame.width)
            grid = (len(self.classes), *segmentation.result.labels.shape)
            contours = self.style.contour_width if self.style.contours else None
            planes = self._cuda.planes(self._slot(frame))
            self._arguments = (
                upsample_arguments(segmentation.view, grid, size, 0, 0, self._buffers),
                trace_arguments(size, contours, self._buffers),
                blend_arguments(planes, form, self._buffers),
            )
        return self._arguments

    def _prepare_tables(self, view: Viewport, color: ColorSpace, size: tuple[int, int]) -> None:
        """Upload the tables for view, color and style, where any has changed."""
        if size != self._size:
            self._gpu_idle()  # before the old memory is freed
            self._labels, self._map = (self._cuda.gpu.empty(size, np.uint8) for _ in range(2))
            self._size, self._prepared = size, None
        if self._prepared == (view, color, self.style):
            return
        inks = overlay_colors(self.classes, self._shown, self.style.opacity, color)
        tables = {
            "inks": ink_table(inks),
            "disc": disc_spans(view, *size),
            "margin": margin_spans(view, *size, self.style.contour_width),
        }
        sent = {name: 0 if table is None else self._uploads.send(name, table) for name, table in tables.items()}
        labels, painted = (self._cuda.gpu.address(buffer) for buffer in (self._labels, self._map))
        self._buffers = OverlayBuffers(labels, painted, **sent)
        self._prepared, self._arguments = (view, color, self.style), None

    def _present(self, segmentation: Segmentation) -> tuple[ClassSpec, ...]:
        assert isinstance(segmentation, CudaSegmentation)
        rows, columns = segmentation.result.labels.shape
        least = LEGEND_SHARE * rows * columns
        return tuple(self.classes[i] for i in sorted(self._shown) if segmentation.counts[i] > least)

    def _gpu_idle(self) -> None:
        """Wait for all work of the overlay's stream."""
        done = self._cuda.gpu.event()
        self._cuda.gpu.record(done, self._stream)
        self._cuda.gpu.synchronize(done)

    def _place(self, frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> None:
        """Stamp a patch. It stays on the GPU until another takes its place."""
        slot, gpu = self._slot(frame), self._cuda.gpu
        placed, form = self._patches.get(at_bottom), (*slot.size, frame.rotation)
        if placed is None or placed.patch is not patch or placed.form != form:
            placed = self._patches[at_bottom] = self._upload_patch(frame, patch, size, at_bottom=at_bottom)
        for arguments, offset, plane in zip(placed.stamps, placed.offsets, (slot.luma, slot.chroma), strict=False):
            arguments.plane = gpu.address(plane) + offset
            gpu.launch(arguments, self._stream)

    def _upload_patch(self, frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> _PlacedPatch:
        """Upload a patch for the offset that it has in the host's planes, which have the shape of the GPU's."""
        turns, stamps, offsets = frame.rotation // 90, [], []
        parts = patch_parts(frame, patch, *corner(frame, patch, size, at_bottom=at_bottom))
        for kind, (part, keep, add) in enumerate(parts):
            plane = (frame.luma, frame.chroma)[kind]
            # In the orientation of the stored frame, not of the displayed one.
            lying, tables = np.rot90(part, -turns), [np.rot90(table, -turns) for table in (keep, add)]
            offsets.append(lying.__array_interface__["data"][0] - plane.__array_interface__["data"][0])
            names = (f"{name} {kind} {at_bottom}" for name in ("keep", "add"))
            sent = [self._uploads.send(n, np.ascontiguousarray(t)) for n, t in zip(names, tables, strict=True)]
            stamps.append(StampPatch(lying[0].size, len(lying), 0, plane.strides[0], 0, *sent))
        return _PlacedPatch(patch, (frame.height, frame.width, frame.rotation), stamps, offsets)

    def _slot(self, frame: Frame) -> Slot:
        return self._cuda.frames.slot_of(frame)
