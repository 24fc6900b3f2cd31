"""Where the picture ends, strip by strip: the evidence from which its shape is found."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Plane

STRIPS = 16
# A strip is so many lines wide, and is read in so many cells along the frame's longer side, whatever the frame's size.
LINES, _CELLS = 4, 480
# An end is where so many bright cells follow each other.
LEAST_CELLS = 3
# Bars may be this much brighter than nominal black, and the picture is at least this much brighter than the bars.
BAR_DROP, BAR_RISE, PICTURE_RISE = 4.0, 16.0, 8.0
# The second opinion on an end: where the strip reaches this share of its own brightness (a glow around the disc does not).
BRIGHT_SHARE = 0.35


class Ends(NamedTuple):
    """The picture's ends on the strips of a frame: left ends, right ends, top ends, bottom ends, `STRIPS` of each.

    points: float64 (2, 4 * STRIPS, 2), (x, y) in frame pixels, by the low and by the high threshold. valid: bool of the
    same first two axes; False where a strip is black. border: True where the picture reaches the frame's own edge.
    cell: the length of a cell in pixels, which is how fine all this is.
    """

    points: NDArray[np.float64]
    valid: NDArray[np.bool_]
    border: NDArray[np.bool_]
    cell: int


def find_ends(luma: Plane, *, full_range: bool) -> Ends:
    """Read the strips of a luma plane (H, W) and find where on each the picture begins and ends."""
    height, width = luma.shape
    cell = cell_size(height, width)
    across, y = _horizontal(luma, cell)
    down, x = _vertical(luma, cell)
    black = _black_level((across, down), 0.0 if full_range else 16.0)
    distances = np.concatenate([_first(across, black, cell), _first(down, black, cell)])
    return place_ends(distances, (y, x), (height, width), cell)


def place_ends(
    distances: NDArray[np.float64], places: tuple[NDArray[np.float64], ...], size: tuple[int, int], cell: int
) -> Ends:
    """Ends in the frame, from how far in the picture begins: (4 sides, 2 thresholds, STRIPS) pixels, infinite for nowhere.

    The sides are left, right, top, bottom; `places` the y of the strips across and the x of those down.
    """
    height, width = size
    left, right, top, bottom = distances
    along = np.concatenate([left, width - right, top, height - bottom], axis=1)
    (y, x), half = places, 2 * STRIPS
    across = np.concatenate([y, y, x, x])
    points = np.empty((*along.shape, 2))
    points[:, :half, 0], points[:, :half, 1] = along[:, :half], across[:half]
    points[:, half:, 0], points[:, half:, 1] = across[half:], along[:, half:]
    joined = np.concatenate(list(distances), axis=1)
    return Ends(points, np.isfinite(joined), joined == 0, cell)


def has_strips(height: int, width: int) -> bool:
    """Whether a frame of this size can be read in strips: each needs cells enough for an end to be found."""
    return min(height, width) >= max(STRIPS, LEAST_CELLS * cell_size(height, width))


def cell_size(height: int, width: int) -> int:
    """The length of a cell in pixels, for a frame of this size."""
    return max(1, round(max(height, width) / _CELLS))


def first_lines(length: int) -> NDArray[np.intp]:
    """First lines of the strips that cut `length` lines evenly."""
    first = (np.arange(STRIPS) + 0.5) * length / STRIPS - LINES / 2
    return np.clip(first, 0, max(length - LINES, 0)).astype(np.intp)


def _horizontal(luma: Plane, cell: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The horizontal strips as rows of cell means, float32 (STRIPS, n), and the y of their centres."""
    first, cells = first_lines(len(luma)), luma.shape[1] // cell
    lines = min(LINES, len(luma))
    rows = luma[(first[:, None] + np.arange(lines)).ravel(), : cells * cell]
    strips = cv2.resize(rows, (cells, STRIPS), interpolation=cv2.INTER_AREA)
    return np.asarray(strips, np.float32), np.asarray(first + lines / 2, np.float64)


def _vertical(luma: Plane, cell: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The vertical strips likewise; of each cell one line is read, as lines are what memory is slow at."""
    first, lines = first_lines(luma.shape[1]), min(LINES, luma.shape[1])
    columns = luma[cell // 2 :: cell][:, (first[:, None] + np.arange(lines)).ravel()]
    strips = columns.reshape(len(columns), STRIPS, lines).mean(axis=2, dtype=np.float32)
    return np.ascontiguousarray(strips.T), first + lines / 2


def _black_level(strips: tuple[NDArray[np.float32], ...], nominal: float) -> float:
    """The brightness of the bars, from the outermost cells, whether or not there are bars."""
    outermost = np.sort(np.concatenate([s[:, [0, -1]].ravel() for s in strips]))
    return float(np.clip(outermost[len(outermost) // 5], nominal - BAR_DROP, nominal + BAR_RISE))


def _first(strips: NDArray[np.float32], black: float, cell: int) -> NDArray[np.float64]:
    """How far from each strip's two ends the picture begins, in pixels: (2 ends, 2 thresholds, STRIPS), infinite if nowhere."""
    cells = strips.shape[1]
    bright = np.partition(strips, cells * 9 // 10, axis=1)[:, cells * 9 // 10]
    rises = np.maximum([np.zeros(STRIPS), (bright - black) * BRIGHT_SHARE], PICTURE_RISE)
    thresholds = (black + rises)[None]
    both = np.stack([strips, strips[:, ::-1]])
    above = both[:, None] > thresholds[..., None]
    run = above[..., 2:] & above[..., 1:-1] & above[..., :-2]
    start = run.argmax(axis=-1)
    end, row = np.arange(2)[:, None, None], np.arange(STRIPS)
    inside, outside = both[end, row, start], both[end, row, np.maximum(start - 1, 0)]
    # Between the last dark cell and the first bright one, where the brightness crosses the threshold.
    crossing = np.clip((thresholds - outside) / np.maximum(inside - outside, 1e-3), 0, 1)
    distance = np.where(start == 0, 0.0, (start - 0.5 + crossing) * cell)
    return np.where(run.any(axis=-1), distance, np.inf)
