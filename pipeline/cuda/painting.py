"""Which arguments the kernels take that turn probabilities into paint: the same look as `cliprl.pipeline.overlay.blend`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.geometry import spans
from cliprl.pipeline.cuda.kernels.kernel_arguments import Blend, TraceContours, Upsample
from cliprl.pipeline.cuda.pictures import Planes
from cliprl.pipeline.overlay.blend import LEVEL, OverlayColors, contour_radius
from cliprl.pipeline.overlay.upsample import picture_mask
from cliprl.pipeline.overlay.upsample import spans as grid_spans


@dataclass(frozen=True, slots=True)
class Canvas:
    """Memory that painting needs, by address: labels and map uint8 of the chroma's size, and tables of the view.

    `disc` and `margin` are `disc_spans` and `margin_spans`, 0 where there are none; `inks` uint16 (4, 256).
    """

    labels: int
    map: int
    inks: int
    disc: int = 0
    margin: int = 0


def disc_spans(view: Viewport, height: int, width: int) -> NDArray[np.int32] | None:
    """The lines' parts inside the endoscope's disc, int32 (height, 2), at the size of the chroma; None where all is."""
    return None if view.circle is None else spans(picture_mask(view, height, width))


def margin_spans(view: Viewport, height: int, width: int, contour_width: float) -> NDArray[np.int32] | None:
    """The lines' parts where contours may be: not on the edge of the view's picture. None where that is the frame's own."""
    if view.circle is None and view.crop[2:] == (view.frame_width, view.frame_height):
        return None
    return spans(picture_mask(view, height, width, margin=contour_radius(contour_width, height) + 2))


def ink_table(inks: OverlayColors) -> NDArray[np.uint16]:
    """What to keep of a pixel and what to add to Y, Cb and Cr, uint16 (4, 256)."""
    return np.stack([inks.keep, *inks.add])


def upsample_arguments(
    view: Viewport, grid: tuple[int, int, int], size: tuple[int, int], probabilities: int, present: int, canvas: Canvas
) -> Upsample:
    """Arguments of `upsample`: a grid of (classes, rows, columns) onto chroma of `size` (height, width)."""
    classes, rows, columns = grid
    height, width = size
    x, y = grid_spans(view, (rows, columns), height, width)
    cells = (x.cells.stop - x.cells.start, y.cells.stop - y.cells.start)
    target = (x.target.start, y.target.start, x.target.stop - x.target.start, y.target.stop - y.target.start)
    numbers = (classes, rows, columns, x.cells.start, y.cells.start, *cells, *target, x.part.start, y.part.start, 0)
    steps = (cells[0] / x.length, cells[1] / y.length)
    return Upsample(width, height, probabilities, present, *numbers, *steps, canvas.disc, canvas.labels)


def trace_arguments(size: tuple[int, int], contour_width: float | None, canvas: Canvas) -> TraceContours:
    """Arguments of `trace` on chroma of `size` (height, width); `contour_width` None draws no contours."""
    core = core_diagonal = soft = soft_diagonal = 0
    if contour_width is not None:
        core = contour_radius(contour_width, size[0])
        # Cross, then square and cross in turn: squares reach out by two along the diagonal, crosses by one.
        core_diagonal = 1 + sum(2 if i % 2 else 1 for i in range(1, core))
        soft, soft_diagonal = core + 1, core_diagonal + (2 if core % 2 else 1)
    octagons = (core, core_diagonal, soft, soft_diagonal, LEVEL, 0)
    return TraceContours(size[1], size[0], canvas.labels, canvas.margin, *octagons, canvas.map)


def blend_arguments(planes: Planes, frame: tuple[int, int], canvas: Canvas) -> Blend:
    """Arguments of `blend` into the planes of a frame of (height, width)."""
    (luma, luma_pitch), (chroma, chroma_pitch) = planes
    height, width = frame
    half = ((width + 1) // 2, (height + 1) // 2)
    return Blend(*half, luma, chroma, luma_pitch, chroma_pitch, width, height, canvas.map, canvas.inks)
