"""Tables and arguments for kernels, computed on the host when a view changes: filters along the axes, spans of lines, warps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import c_float
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.color import ColorSpace, yuv_to_rgb_matrix
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.cuda.kernels.kernel_arguments import Axis, Prepare
from cliprl.pipeline.view.grid_warp import grid_map

# Address and pitch, in bytes, of luma and of chroma.
Planes = tuple[tuple[int, int], tuple[int, int]]


class Taps(NamedTuple):
    """A linear filter along one axis: output i is sum(weight[i, t] * input[first[i] + t]). int32 (n,) and float32 (n, taps).

    An input whose weight is 0 may lie outside the image.
    """

    first: NDArray[np.int32]
    weight: NDArray[np.float32]


class Filters(NamedTuple):
    """The filters that scale a view's crop to its place in the network input."""

    luma_x: Taps
    luma_y: Taps
    chroma_x: Taps
    chroma_y: Taps


@lru_cache(maxsize=8)
def filters(view: Viewport) -> Filters:
    """Return the filters of `CpuDevice.prepare`, composed: halve while the scale is 2 or more, then interpolate linearly."""
    left, top, width, height = view.crop
    luma = (width, height)
    chroma = ((left + width + 1) // 2 - left // 2, (top + height + 1) // 2 - top // 2)
    return Filters(*_plane(luma, view.placed[2:]), *_plane(chroma, view.placed[2:]))


def _plane(lengths: tuple[int, int], sizes: tuple[int, ...]) -> tuple[Taps, Taps]:
    factor = min(length / size for length, size in zip(lengths, sizes, strict=True))
    halvings = int(math.log2(max(factor, 1)))
    x, y = (_axis(length, size, halvings) for length, size in zip(lengths, sizes, strict=True))
    return x, y


def _axis(length: int, size: int, halvings: int) -> Taps:
    taps = Taps(np.arange(length, dtype=np.int32), np.ones((length, 1), np.float32))
    for _ in range(halvings):
        half = (length + 1) // 2
        taps, length = _compose(_area(length, half), taps), half
    return _compose(_linear(length, size), taps)


def _area(length: int, size: int) -> Taps:
    """Average the inputs that each output covers, parts of pixels included (OpenCV's INTER_AREA)."""
    scale = length / size
    start = np.arange(size) * scale
    stop = np.minimum(start + scale, length)
    first = np.floor(start + 1e-9).astype(np.int32)
    pixels = first[:, None] + np.arange(math.ceil(scale) + 1)
    covered = np.minimum(pixels + 1, stop[:, None]) - np.maximum(pixels, start[:, None])
    covered = np.where(covered < 1e-6, 0, covered)
    return Taps(first, (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32))


def _linear(length: int, size: int) -> Taps:
    """Interpolate each output between two inputs; the outermost inputs repeat (OpenCV's INTER_LINEAR)."""
    place = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
    first = np.minimum(place.astype(np.int32), max(length - 2, 0))
    upper = (place - first).astype(np.float32)
    return Taps(first, np.stack([1 - upper, upper], axis=1)[:, : min(length, 2)])


def _compose(outer: Taps, inner: Taps) -> Taps:
    """Compose two filters: `outer` applied to the output of `inner`."""
    last = len(inner.first) - 1
    first = inner.first[np.minimum(outer.first, last)]
    reads = [np.minimum(outer.first + tap, last) for tap in range(outer.weight.shape[1])]
    reach = max(int((inner.first[read] - first).max()) for read in reads) + inner.weight.shape[1]
    weight = np.zeros((len(first), reach), np.float32)
    rows = np.arange(len(first))[:, None]
    for tap, read in enumerate(reads):
        columns = (inner.first[read] - first)[:, None] + np.arange(inner.weight.shape[1])
        weight[rows, columns] += outer.weight[:, tap, None] * inner.weight[read]
    return Taps(first.astype(np.int32), np.ascontiguousarray(weight))


def line_spans(mask: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return the first and one past the last set column of each line (h, w), int32 (h, 2); set columns are adjacent."""
    set_ = mask != 0
    first = set_.argmax(axis=1)
    return np.stack([first, first + set_.sum(axis=1)], axis=1).astype(np.int32)


@lru_cache(maxsize=16)
def inside_spans(view: Viewport, height: int, width: int) -> NDArray[np.int32]:
    """Return `line_spans` of `inside_cells`: the part of a grid over the network input that lies in the field of view."""
    return line_spans(inside_cells(view, height, width))


def prepare_arguments(view: Viewport, color: ColorSpace, planes: Planes, tables: Sequence[int], image: int) -> Prepare:
    """Return the arguments of `prepare`. `tables` are the addresses of the view's filters and of its `inside_spans`."""
    matrix, offset = yuv_to_rgb_matrix(color.matrix, color.full_range)
    (luma, luma_pitch), (chroma, chroma_pitch) = planes
    axes = [Axis(tables[2 * i], tables[2 * i + 1], taps.weight.shape[1], 0) for i, taps in enumerate(filters(view))]
    numbers = (luma_pitch, chroma_pitch, view.frame_width, view.frame_height, *view.crop[:2], *view.placed)
    floats = ((c_float * 9)(*matrix.ravel()), (c_float * 3)(*offset))
    size = (view.network_width, view.network_height)
    return Prepare(*size, luma, chroma, *numbers, *axes, tables[8], *floats, 0, image)


def warp_of(old: Viewport, new: Viewport, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Return scale and shift along x, then y, float32 (4,): old cell = scale * new cell + shift, for a grid (rows, columns).

    The identity, exactly, where both views see the same part of the frame.
    """
    if (old.crop, old.placed) == (new.crop, new.placed):
        return np.array([1, 0, 1, 0], np.float32)
    scale, shift = grid_map(new, old, grid)
    return np.stack([scale, shift], axis=1).ravel().astype(np.float32)
