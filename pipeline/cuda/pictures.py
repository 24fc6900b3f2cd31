"""Which arguments the kernels around the network's picture take for a view and a colour space."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_float

from cliprl.pipeline.core.color import Color, yuv_to_rgb_matrix
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.geometry import filters
from cliprl.pipeline.cuda.kernels.kernel_arguments import Axis, Prepare

# Address and pitch, in bytes, of luma and of chroma.
Planes = tuple[tuple[int, int], tuple[int, int]]


def prepare_arguments(view: Viewport, color: Color, planes: Planes, tables: Sequence[int], picture: int) -> Prepare:
    """Arguments of `prepare`. `tables` are the addresses of the view's filters, in order, and of its `inside_spans`."""
    matrix, offset = yuv_to_rgb_matrix(color.matrix, color.full_range)
    (luma, luma_pitch), (chroma, chroma_pitch) = planes
    axes = [Axis(tables[2 * i], tables[2 * i + 1], taps.weight.shape[1], 0) for i, taps in enumerate(filters(view))]
    numbers = (luma_pitch, chroma_pitch, view.frame_width, view.frame_height, *view.crop[:2], *view.placed)
    floats = ((c_float * 9)(*matrix.ravel()), (c_float * 3)(*offset))
    size = (view.network_width, view.network_height)
    return Prepare(*size, luma, chroma, *numbers, *axes, tables[8], *floats, 0, picture)
