"""The shape of the field of view: its edges along strips of the frame, and robust fits of a disc and a rectangle."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Plane
from cliprl.pipeline.core.viewport import Circle

STRIPS = 16
# Width of a strip in lines, and number of cells along the longer side of the frame, for every frame size.
LINES, _CELLS = 4, 480
# Number of consecutive bright cells that make an end.
LEAST_CELLS = 3
# Bars may be this much brighter than nominal black, and the image is at least this much brighter than the bars.
BAR_DROP, BAR_RISE, IMAGE_RISE = 4.0, 16.0, 8.0
# A second threshold for an end, as a share of the brightness of the strip. A glow around the disc stays below it.
BRIGHT_SHARE = 0.35
# The direction of the distances from the frame's edge inwards: left, right, top, bottom, for each strip.
_OUTWARDS = np.repeat([1.0, -1.0, 1.0, -1.0], STRIPS)


class Ends(NamedTuple):
    """The image's ends on the strips of a frame: left ends, right ends, top ends, bottom ends, `STRIPS` of each.

    points: float64 (2, 4 * STRIPS, 2), (x, y) in frame pixels, by the low and by the high threshold. valid: bool of the
    same first two axes; False where a strip is black. border: True where the image reaches the frame's own edge.
    cell: the length of a cell in pixels, which is how fine all this is.
    """

    points: NDArray[np.float64]
    valid: NDArray[np.bool_]
    border: NDArray[np.bool_]
    cell: int

    @property
    def places(self) -> NDArray[np.complex128]:
        """The points as complex numbers x + iy: (2, 4 * STRIPS)."""
        return self.points.view(np.complex128)[..., 0]


def find_ends(luma: Plane, *, full_range: bool) -> Ends:
    """Read the strips of a luma plane (H, W) and find where on each the image begins and ends."""
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
    """Ends in the frame, from how far in the image begins: (4 sides, 2 thresholds, STRIPS) pixels, infinite for nowhere.

    The sides are left, right, top, bottom; `places` the y of the strips across and the x of those down.
    """
    height, width = size
    joined = np.ascontiguousarray(distances.transpose(1, 0, 2)).reshape(2, -1)
    along = joined * _OUTWARDS
    along[:, STRIPS : 2 * STRIPS] += width
    along[:, 3 * STRIPS :] += height
    (y, x), half = places, 2 * STRIPS
    points = np.empty((*along.shape, 2))
    points[:, :half, 0], points[:, half:, 1] = along[:, :half], along[:, half:]
    points[:, :STRIPS, 1] = points[:, STRIPS:half, 1] = y
    points[:, half : half + STRIPS, 0] = points[:, half + STRIPS :, 0] = x
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
    """The horizontal strips as rows of cell means, float32 (STRIPS, n), and the y of their centers."""
    first, cells = first_lines(len(luma)), luma.shape[1] // cell
    lines = min(LINES, len(luma))
    rows = luma[(first[:, None] + np.arange(lines)).ravel(), : cells * cell]
    strips = cv2.resize(rows, (cells, STRIPS), interpolation=cv2.INTER_AREA)
    return np.asarray(strips, np.float32), np.asarray(first + lines / 2, np.float64)


def _vertical(luma: Plane, cell: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return the vertical strips in the same form. One line of each cell is read, because memory is slow at reading lines."""
    first, lines = first_lines(luma.shape[1]), min(LINES, luma.shape[1])
    columns = luma[cell // 2 :: cell][:, (first[:, None] + np.arange(lines)).ravel()]
    strips = columns.reshape(len(columns), STRIPS, lines).mean(axis=2, dtype=np.float32)
    return np.ascontiguousarray(strips.T), first + lines / 2


def _black_level(strips: tuple[NDArray[np.float32], ...], nominal: float) -> float:
    """The brightness of the bars, from the outermost cells, whether or not there are bars."""
    outermost = np.sort(np.concatenate([s[:, [0, -1]].ravel() for s in strips]))
    return float(np.clip(outermost[len(outermost) // 5], nominal - BAR_DROP, nominal + BAR_RISE))


def _first(strips: NDArray[np.float32], black: float, cell: int) -> NDArray[np.float64]:
    """How far from each strip's two ends the image begins, in pixels: (2 ends, 2 thresholds, STRIPS), infinite if nowhere."""
    cells = strips.shape[1]
    bright = np.partition(strips, cells * 9 // 10, axis=1)[:, cells * 9 // 10]
    rises = np.maximum([np.zeros(STRIPS), (bright - black) * BRIGHT_SHARE], IMAGE_RISE)
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


# Left, top, right, bottom in frame pixels.
Rectangle = tuple[float, float, float, float]

# Three ends for each trial: the same draws every time, so that the same frame gives the same image.
_DRAWS = default_rng(16).random((64, 3))
# A disc's radius as a share of the frame's longer side.
_RADII = (0.1, 1.0)
# A circle near that of the last frame that explains this share of the ends needs no rival.
_PLAIN = 0.7
# Fewer ends than this on a disc's edge are chance.
_FEWEST = 8
# A rectangle's side is where this share of the ends on it agree; the outermost such place.
_AGREEING = 0.35
# Points whose second moments have a determinant below this share of their squared sum lie on a line.
_FLAT = 1e-8


def fit_disc(ends: Ends, longer: int) -> tuple[Circle, float] | None:
    """The circle that explains most ends, and the share of all ends that it explains; None where there is none.

    It explains an end that lies on its edge, and one at the frame's own edge that lies within it. `longer` is the frame's
    longer side, which bounds the radius. Random triples of ends propose circles (RANSAC).
    """
    points = ends.points[ends.valid & ~ends.border]
    if len(points) < _FEWEST:
        return None
    circles = _through(points[(_DRAWS * len(points)).astype(np.intp)])
    radii = circles[:, 2] / longer
    circles = circles[(radii > _RADII[0]) & (radii < _RADII[1])]
    if not len(circles):
        return None
    outside = np.abs(ends.places - (circles[:, 0] + 1j * circles[:, 1])[:, None, None]) - circles[:, 2, None, None]
    x, y, radius = circles[_explained_by(outside, ends).any(axis=1).sum(axis=1).argmax()].tolist()
    return refine_disc((x, y, radius), ends)


def follow_disc(last: Circle, ends: Ends, longer: int) -> Circle | None:
    """The circle near that of the last frame, where it explains enough ends to need no rival; otherwise None."""
    found = refine_disc(last, ends)
    plain = found is not None and found[1] >= _PLAIN and found[0][2] < _RADII[1] * longer
    return found[0] if found is not None and plain else None


def refine_disc(circle: Circle, ends: Ends) -> tuple[Circle, float] | None:
    """Fit a circle to the ends near its edge by least squares, twice; and the share of all ends that it explains."""
    valid, tolerance = ends.valid, _tolerance(ends)
    usable, outside, fitted = valid & ~ends.border, _outside(circle, ends), b""
    for reach in (2 * tolerance, tolerance):
        on_edge = (np.abs(outside) < reach) & usable
        if on_edge.tobytes() == fitted:
            break  # the same ends give the same circle
        if np.count_nonzero(on_edge[0] | on_edge[1]) < _FEWEST:
            return None
        circle, fitted = _least_squares(ends.points[on_edge]), on_edge.tobytes()
        outside = _outside(circle, ends)
    explained = _explained_by(outside, ends)
    return circle, np.count_nonzero(explained[0] | explained[1]) / np.count_nonzero(valid[0] | valid[1])


def _outside(circle: Circle, ends: Ends) -> NDArray[np.float64]:
    """How far each end (2, n) lies outside one circle, in pixels."""
    x, y, radius = circle
    return np.asarray(np.abs(ends.places - complex(x, y)) - radius)


def _explained_by(outside: NDArray[np.float64], ends: Ends) -> NDArray[np.bool_]:
    """Which ends (..., 2, n) that lie so far outside a shape, in pixels, are on its edge, or on that of the frame within it."""
    tolerance = _tolerance(ends)
    return np.asarray((outside < tolerance) & (ends.border | (outside > -tolerance)) & ends.valid)


def _tolerance(ends: Ends) -> float:
    return 1.5 * ends.cell


def _through(triples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Circles (n, 3) of (x, y, radius) through triples of points (n, 3, 2); those of points on a line are left out."""
    a, b, c = triples[:, 0], triples[:, 1] - triples[:, 0], triples[:, 2] - triples[:, 0]
    cross = 2 * (b[:, 0] * c[:, 1] - b[:, 1] * c[:, 0])
    proper = np.abs(cross) > 1e-6
    a, b, c, cross = a[proper], b[proper], c[proper], cross[proper]
    bb, cc = (b**2).sum(axis=1), (c**2).sum(axis=1)
    x = (c[:, 1] * bb - b[:, 1] * cc) / cross
    y = (b[:, 0] * cc - c[:, 0] * bb) / cross
    return np.stack([a[:, 0] + x, a[:, 1] + y, np.hypot(x, y)], axis=1)


def edge_ends(shape: Circle | Rectangle, ends: Ends) -> NDArray[np.bool_]:
    """Which ends lie on the edge of a shape, or on that of the frame within it: bool (2, n)."""
    if len(shape) == 3:
        return _explained_by(_outside(shape, ends), ends)
    along = ends.points.reshape(2, 4, STRIPS, 2)
    places = np.stack([along[:, side, :, side // 2] for side in range(4)], axis=1)
    left, top, right, bottom = shape
    outside = (places - np.array([left, right, top, bottom])[:, None]) * _SIDES
    return _explained_by(outside.reshape(2, -1), ends)


def _least_squares(points: NDArray[np.float64]) -> Circle:
    """The circle nearest to points (n, 2) in the algebraic sense (Kåsa): x² + y² = 2ax + 2by + c."""
    places, count = points.view(np.complex128)[:, 0], len(points)
    center = complex(places.sum()) / count
    offsets = places - center  # x + iy, whose sum is 0: two unknowns are left
    squares = (offsets * offsets.conj()).real
    # xx + yy; xx - yy + 2i xy; xz + i yz with z = x² + y².
    total, second, third = float(squares.sum()), complex(offsets @ offsets), complex(offsets @ squares)
    determinant = total**2 - abs(second) ** 2
    if determinant > _FLAT * total**2:
        shift, c = (total * third - second * third.conjugate()) / determinant, total / count
    else:  # nearly on a line
        columns = np.stack([2 * offsets.real, 2 * offsets.imag, np.ones(count)], axis=1)
        (a, b, c), *_ = np.linalg.lstsq(columns, squares, rcond=None)
        shift = complex(a, b)
    found = center + shift
    return found.real, found.imag, math.sqrt(c + abs(shift) ** 2)


class Sides(NamedTuple):
    """The sides of a rectangle on which most ends lie. share: the share of all ends that it explains. near: bool (4, 2 * STRIPS),
    the ends on each side; places: float64 of the same shape, where they lie.
    """

    share: float
    near: NDArray[np.bool_]
    places: NDArray[np.float64]

    def rectangle(self) -> Rectangle:
        """Return the rectangle: each side is the median of its ends."""
        left, right, top, bottom = (_median(places[near]) for places, near in zip(self.places, self.near, strict=True))
        return left, top, right, bottom


def fit_rectangle(ends: Ends) -> Sides | None:
    """The rectangle on whose sides most ends lie; None where a side is nowhere.

    A side is the outermost place that enough of the strips agree on.
    """
    valid = ends.valid.reshape(2, 4, STRIPS)
    along = np.empty((4, 2, STRIPS))
    along[:2] = ends.points[:, : 2 * STRIPS, 0].reshape(2, 2, STRIPS).swapaxes(0, 1)
    along[2:] = ends.points[:, 2 * STRIPS :, 1].reshape(2, 2, STRIPS).swapaxes(0, 1)
    along[~valid.swapaxes(0, 1)] = np.nan
    places = along.reshape(4, 2 * STRIPS)
    apart = places[:, None] - places[:, :, None]
    near = np.abs(apart, out=apart) <= float(ends.cell)
    counts = np.count_nonzero(near[..., :STRIPS] | near[..., STRIPS:], axis=2)
    strips = np.count_nonzero(valid[0] | valid[1], axis=1)
    agreed = counts >= np.maximum(_AGREEING * strips, 3)[:, None]
    if not agreed.any(axis=1).all():
        return None
    best = np.where(agreed, places * _SIDES, -np.inf).argmax(axis=1)
    explained = counts[_FOUR, best].sum()
    return Sides(float(explained / strips.sum()), near[_FOUR, best], places)


# Outwards along each side's axis: left, right, top, bottom.
_SIDES, _FOUR = np.array([[-1.0], [1.0], [-1.0], [1.0]]), np.arange(4)


def _median(values: NDArray[np.float64]) -> float:
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2
