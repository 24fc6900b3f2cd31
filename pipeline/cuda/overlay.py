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
from cliprl.pipeline.cuda.geometry import Planes
from cliprl.pipeline.cuda.kernels.kernel_arguments import (
    Blend,
    ChromaDisc,
    StampPart,
    StampPatches,
    TraceContours,
    Upsample,
)
from cliprl.pipeline.cuda.ring import Slot
from cliprl.pipeline.cuda.segmentation import CudaSegmentation
from cliprl.pipeline.cuda.upload import UploadBuffers
from cliprl.pipeline.overlay.overlay import LEGEND_SHARE, Overlay, contour_radius, corner, patch_parts
from cliprl.pipeline.overlay.style import LABEL_LUMA, OverlayColors, Style, overlay_colors
from cliprl.pipeline.overlay.text import Patch
from cliprl.pipeline.overlay.upsample import disc_at, grid_spans, image_box


@dataclass(frozen=True, slots=True)
class OverlayBuffers:
    """Addresses of the overlay's memory: labels and map, uint8 of the chroma's size; `inks` uint16 (4, 256)."""

    labels: int
    map: int
    inks: int


@dataclass(frozen=True, slots=True)
class _PlacedPatch:
    """A patch on the GPU, for frames of one form (height, width, rotation): a part on luma and one on chroma.

    `offsets` are the bytes from a plane's start to the patch's corner; `lines` the first line of luma, and one past the last.
    """

    patch: Patch
    form: tuple[int, int, int]
    parts: list[StampPart]
    offsets: list[int]
    lines: tuple[int, int]


def chroma_disc(view: Viewport, size: tuple[int, int], margin: int = 0) -> ChromaDisc:
    """Return the disc of a view on chroma of `size` (height, width), without `margin` pixels at its edge."""
    if view.circle is None:
        return ChromaDisc()
    x, y, radius = disc_at(view, *size, margin)
    return ChromaDisc(x, y, radius**2, 1)


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
    return Upsample(width, height, probabilities, present, *numbers, *steps, chroma_disc(view, size), buffers.labels)


def trace_arguments(
    view: Viewport, size: tuple[int, int], contour_width: float | None, buffers: OverlayBuffers
) -> TraceContours:
    """Return the arguments of `trace` on chroma of `size` (height, width); `contour_width` None draws no contours."""
    core = core_diagonal = soft = soft_diagonal = 0
    box, inner = (0, 0, 0, 0), ChromaDisc()
    if contour_width is not None:
        core = contour_radius(contour_width, size[0])
        # Cross, then square and cross in turn: squares reach out by two along the diagonal, crosses by one.
        core_diagonal = 1 + sum(2 if i % 2 else 1 for i in range(1, core))
        soft, soft_diagonal = core + 1, core_diagonal + (2 if core % 2 else 1)
        whole = view.crop[2:] == (view.frame_width, view.frame_height) and view.circle is None
        box = (0, 0, size[1], size[0]) if whole else image_box(view, *size, core + 2)
        inner = chroma_disc(view, size, core + 2)
    octagons = (core, core_diagonal, soft, soft_diagonal, LABEL_LUMA, 0)
    return TraceContours(size[1], size[0], buffers.labels, inner, *box, *octagons, buffers.map)


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
        self._placed: list[_PlacedPatch] = []
        self._size = (0, 0)
        self._inked: tuple[ColorSpace, Style] | None = None
        self._view: Viewport | None = None
        self._buffers = OverlayBuffers(0, 0, 0)
        self._arguments: tuple[Upsample, TraceContours, Blend] | None = None
        super().__init__(classes, style)

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Draw on the GPU and, if `to_host`, copy the planes to the host and wait for this frame only: see `Overlay.draw`."""
        gpu, ring = self._cuda.gpu, self._cuda.frames
        result = segmentation.result if isinstance(segmentation, CudaSegmentation) else None
        slot = ring.own(frame, self._stream, *([] if result is None else [result.ready]))
        self._placed.clear()
        super().draw(frame, segmentation, status)
        self._stamp(slot)
        if self.to_host and (slot.filled or self.style.opacity > 0):
            gpu.copy(slot.pinned, slot.memory, self._stream)
        ring.rewritten(frame, self._stream)
        if self.to_host:
            gpu.synchronize(slot.ready)
            slot.idle = True
        elif result is not None:
            result.reading = slot.ready
        self._uploads.close(done=self.to_host)

    def _paint(self, frame: Frame, segmentation: Segmentation, color: ColorSpace) -> None:
        assert isinstance(segmentation, CudaSegmentation)
        gpu, result = self._cuda.gpu, segmentation.result
        upsample, trace, blend = self._launches(segmentation, frame, color)
        upsample.probabilities, upsample.present = gpu.address(result.probabilities), gpu.address(result.present)
        (blend.luma, _), (blend.chroma, _) = self._slot(frame).planes
        for arguments in (upsample, trace, blend):
            gpu.launch(arguments, self._stream)

    def _launches(
        self, segmentation: CudaSegmentation, frame: Frame, color: ColorSpace
    ) -> tuple[Upsample, TraceContours, Blend]:
        """Return the arguments of the launches, made anew with the tables. The caller sets the addresses of the frame."""
        size, view = (len(frame.chroma), frame.chroma.shape[1]), segmentation.view
        if self._tables_sent(color, size) and self._view == view and self._arguments is not None:
            return self._arguments
        self._view = view
        grid = (len(self.classes), *segmentation.result.labels.shape)
        contours = self.style.contour_width if self.style.contours else None
        self._arguments = (
            upsample_arguments(view, grid, size, 0, 0, self._buffers),
            trace_arguments(view, size, contours, self._buffers),
            blend_arguments(self._slot(frame).planes, (frame.height, frame.width), self._buffers),
        )
        return self._arguments

    def _tables_sent(self, color: ColorSpace, size: tuple[int, int]) -> bool:
        """Allocate memory for a new size, upload the table of a new color or style; return whether nothing has changed."""
        if size != self._size:
            self._gpu_idle()  # before the old memory is freed
            self._labels, self._map = (self._cuda.gpu.empty(size, np.uint8) for _ in range(2))
            self._size, self._inked = size, None
        if self._inked == (color, self.style):
            return True
        table = ink_table(overlay_colors(self.classes, self._shown, self.style.opacity, color))
        inks = self._uploads.send("inks", table)
        labels, painted = (self._cuda.gpu.address(buffer) for buffer in (self._labels, self._map))
        self._buffers, self._inked = OverlayBuffers(labels, painted, inks), (color, self.style)
        return False

    def _present(self, segmentation: Segmentation) -> tuple[ClassSpec, ...]:
        assert isinstance(segmentation, CudaSegmentation)
        rows, columns = segmentation.result.labels.shape
        least, counts = LEGEND_SHARE * rows * columns, segmentation.counts
        return tuple(self.classes[i] for i in sorted(self._shown) if counts[i] > least)

    def _gpu_idle(self) -> None:
        """Wait for all work of the overlay's stream."""
        done = self._cuda.gpu.event()
        self._cuda.gpu.record(done, self._stream)
        self._cuda.gpu.synchronize(done)

    def _place(self, frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> None:
        """Place a patch, which `draw` stamps. It stays on the GPU until another takes its place."""
        placed, form = self._patches.get(at_bottom), (frame.height, frame.width, frame.rotation)
        if placed is None or placed.patch is not patch or placed.form != form:
            placed = self._patches[at_bottom] = self._upload_patch(frame, patch, size, at_bottom=at_bottom)
        self._placed.append(placed)

    def _upload_patch(self, frame: Frame, patch: Patch, size: int, *, at_bottom: bool) -> _PlacedPatch:
        """Upload a patch for the offset that it has in the host's planes, which have the shape of the GPU's."""
        turns, offsets, tables, forms = frame.rotation // 90, [], list[NDArray[np.uint16]](), []
        x, y = corner(frame, patch, size, at_bottom=at_bottom)
        for plane, (part, keep, add) in zip((frame.luma, frame.chroma), patch_parts(frame, patch, x, y), strict=False):
            # In the orientation of the stored frame, not of the displayed one.
            lying = np.rot90(part, -turns)
            tables += [np.rot90(table, -turns).ravel() for table in (keep, add)]
            offsets.append(lying.__array_interface__["data"][0] - plane.__array_interface__["data"][0])
            forms.append((plane.strides[0], lying[0].size, len(lying)))
        parts, lines = list[StampPart](), (y, y + len(patch.luma_keep))
        if tables:
            place = self._uploads.send(f"patch {at_bottom}", np.concatenate(tables))
            for form, keep in zip(forms, tables[::2], strict=True):
                parts.append(StampPart(0, place, place + keep.nbytes, *form, 0))
                place += 2 * keep.nbytes
        return _PlacedPatch(patch, (frame.height, frame.width, frame.rotation), parts, offsets, lines)

    def _stamp(self, slot: Slot) -> None:
        """Stamp the placed patches: at once, unless they overlap."""
        placed = [each for each in self._placed if each.parts]
        overlap = len(placed) > 1 and placed[0].lines[1] > placed[1].lines[0]
        for group in [[each] for each in placed] if overlap else [placed] if placed else []:
            parts = [part for each in group for part in each.parts]
            offsets = [offset for each in group for offset in each.offsets]
            for part, offset, (plane, _) in zip(parts, offsets, slot.planes * len(group), strict=True):
                part.plane = plane + offset
            width, height = max(part.width for part in parts), sum(part.height for part in parts)
            self._cuda.gpu.launch(StampPatches(width, height, (StampPart * 4)(*parts)), self._stream)

    def _slot(self, frame: Frame) -> Slot:
        return self._cuda.frames.slot_of(frame)
