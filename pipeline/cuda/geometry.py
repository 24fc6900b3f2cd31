"""Tables and numbers for kernels, computed on the host when a view changes: filters along the axes, places, warps."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.color import ColorSpace, yuv_to_rgb_matrix
from cliprl.pipeline.core.viewport import Viewport, network_to_frame
from cliprl.pipeline.cuda.kernels.kernel_arguments import Axis, FrameData
from cliprl.pipeline.overlay.upsample import grid_spans
from cliprl.pipeline.view.grid_warp import axis_map

# Address and pitch, in bytes, of luma and of chroma.
Planes = tuple[tuple[int, int], tuple[int, int]]


class Taps(NamedTuple):
    """A linear filter along one axis: output i is sum(weight[i, t] * input[first[i] + t]). int32 (n,) and float32 (n, taps).

    An input whose weight is 0 may lie outside the image.
    """

    first: NDArray[np.int32]
    weight: NDArray[np.float32]

    def packed(self) -> NDArray[np.uint8]:
        """Return the bytes of both arrays, one behind the other."""
        return np.concatenate([self.first.view(np.uint8), self.weight.reshape(-1).view(np.uint8)])


class Filters(NamedTuple):
    """The filters that scale a view's crop to its place in the network input."""

    luma_x: Taps
    luma_y: Taps
    chroma_x: Taps
    chroma_y: Taps


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


# Room for all lengths of a crop that moves and grows.
@lru_cache(maxsize=256)
def _axis(length: int, size: int, halvings: int) -> Taps:
    taps, whole = Taps(np.arange(length, dtype=np.int32), np.ones((length, 1), np.float32)), length
    for _ in range(halvings):
        length //= 2  # without a last odd pixel
        pairs = Taps(2 * np.arange(length, dtype=np.int32), np.full((length, 2), 0.5, np.float32))
        taps = _compose(pairs, taps)
    scale = whole / 2**halvings / size
    return _compose(_linear(length, size, scale if round(length / scale) == size else length / size), taps)


def _linear(length: int, size: int, scale: float) -> Taps:
    """Interpolate each output, `scale` inputs long, between two; the outermost inputs repeat (OpenCV's INTER_LINEAR)."""
    place = np.clip((np.arange(size) + 0.5) * scale - 0.5, 0, length - 1)
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


class AxisTables:
    """The filters of a view as bytes for the GPU, packed once for each axis."""

    def __init__(self) -> None:
        self.tables: tuple[NDArray[np.uint8], ...] = ()
        self._filters: Filters | None = None

    @property
    def size(self) -> int:
        """The number of bytes of all tables."""
        return sum(table.nbytes for table in self.tables)

    def update(self, view: Viewport) -> bool:
        """Compute the tables of a view; return whether any differs from those of the last."""
        found, last = filters(view), self._filters
        if last is not None and all(ours is theirs for ours, theirs in zip(found, last, strict=True)):
            return False
        self._filters, self.tables = found, tuple(taps.packed() for taps in found)
        return True

    def place(self, data: FrameData, address: int) -> None:
        """Write the tables' addresses, where they lie one behind the other from `address` on."""
        assert self._filters is not None
        for name, taps, table in zip(Filters._fields, self._filters, self.tables, strict=True):
            setattr(data, name, Axis(address, address + taps.first.nbytes, taps.weight.shape[1], 0))
            address += table.nbytes


def set_color(data: FrameData, color: ColorSpace) -> None:
    """Write how a frame's colors become RGB."""
    matrix, offset = yuv_to_rgb_matrix(color.matrix, color.full_range)
    data.matrix[:], data.offset[:] = matrix.ravel().tolist(), offset.tolist()


def set_planes(data: FrameData, planes: Planes) -> None:
    """Write where the planes of a frame lie."""
    (data.luma, data.luma_pitch), (data.chroma, data.chroma_pitch) = planes


def set_view(data: FrameData, view: Viewport, grid: tuple[int, int]) -> None:
    """Write where a view lies in frame and network input, and which cells of a grid (rows, columns) it touches."""
    data.crop_left, data.crop_top = view.crop[:2]
    data.placed_left, data.placed_top, data.placed_width, data.placed_height = view.placed
    data.network_width, data.network_height = view.network_width, view.network_height
    x, y = grid_spans(view, grid, view.frame_height, view.frame_width)
    data.touched_left, data.touched_right = x.cells.start, x.cells.stop
    data.touched_top, data.touched_bottom = y.cells.start, y.cells.stop
    disc = data.disc
    disc.present = int(view.circle is not None)
    if view.circle is not None:
        (disc.scale_x, _, disc.shift_x), (_, disc.scale_y, disc.shift_y) = network_to_frame(view).tolist()
        disc.center_x, disc.center_y, radius = view.circle
        disc.squared = radius**2


IDENTITY = (1.0, 0.0, 1.0, 0.0)


def warp_of(old: Viewport, new: Viewport, grid: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return scale and shift along x, then y: old cell = scale * new cell + shift, for a grid (rows, columns).

    The identity, exactly, where both views see the same part of the frame.
    """
    if (old.crop, old.placed) == (new.crop, new.placed):
        return IDENTITY
    return *axis_map(new, old, 0, grid[1]), *axis_map(new, old, 1, grid[0])
