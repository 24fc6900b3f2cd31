"""Robust fits of the endoscope's picture to the ends of strips: a disc, or a rectangle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Circle
from cliprl.pipeline.view.edge_scan import STRIPS, Ends

# Left, top, right, bottom in frame pixels.
Rectangle = tuple[float, float, float, float]

_TRIALS = 64
# The same draws every time, so that the same frame gives the same picture.
_DRAWS = np.random.default_rng(16).random((_TRIALS, 3))
# A disc's radius as a share of the frame's longer side.
_RADII = (0.1, 1.0)
# A circle that explains this share of the ends needs no rival.
_PLAIN = 0.7
# Fewer ends than this on a disc's edge are chance.
_FEWEST = 8
# A rectangle's side is where this share of the ends on it agree; the outermost such place.
_AGREEING = 0.35


def fit_disc(ends: Ends, longer: int, guess: Circle | None = None) -> tuple[Circle, float] | None:
    """The circle that explains most ends, and the share of all ends that it explains; None where there is none.

    It explains an end that lies on its edge, and one at the frame's own edge that lies within it. `longer` is the frame's
    longer side, which bounds the radius. Where the circle near `guess` (the last frame's) explains most ends, it is taken;
    else random triples of ends propose circles (RANSAC).
    """
    if guess is not None:
        found = _refine(np.array(guess), ends)
        if found is not None and found[1] >= _PLAIN:
            return found
    points = ends.points[ends.valid & ~ends.border]
    if len(points) < _FEWEST:
        return None
    circles = _through(points[(_DRAWS * len(points)).astype(np.intp)])
    radii = circles[:, 2] / longer
    circles = circles[(radii > _RADII[0]) & (radii < _RADII[1])]
    return _refine(circles[_explained(circles, ends).sum(axis=1).argmax()], ends) if len(circles) else None


def _refine(circle: NDArray[np.float64], ends: Ends) -> tuple[Circle, float] | None:
    """Fit a circle to the ends near its edge by least squares, twice; and the share of all ends that it explains."""
    for tolerance in (2 * _tolerance(ends), _tolerance(ends)):
        on_edge = (np.abs(_beyond(circle[None], ends)[0]) < tolerance) & ends.valid & ~ends.border
        if on_edge.any(axis=0).sum() < _FEWEST:
            return None
        circle = _least_squares(ends.points[on_edge])
    share = float(_explained(circle[None], ends).sum() / ends.valid.any(axis=0).sum())
    return (float(circle[0]), float(circle[1]), float(circle[2])), share


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


def _beyond(circles: NDArray[np.float64], ends: Ends) -> NDArray[np.float64]:
    """How far each end (2, n) lies outside each circle, in pixels."""
    offset = ends.points[None] - circles[:, None, None, :2]
    return np.asarray(np.sqrt(np.einsum("cenk,cenk->cen", offset, offset)) - circles[:, 2, None, None])


def _explained(circles: NDArray[np.float64], ends: Ends) -> NDArray[np.bool_]:
    """Which ends each circle explains, by either threshold: (circles, n)."""
    beyond, tolerance = _beyond(circles, ends), _tolerance(ends)
    explained = (beyond < tolerance) & (ends.border | (beyond > -tolerance)) & ends.valid
    return np.asarray(explained.any(axis=1))


def _least_squares(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The circle nearest to points (n, 2) in the algebraic sense (Kåsa): x² + y² = 2ax + 2by + c."""
    centre = points.mean(axis=0)
    x, y = (points - centre).T
    (a, b, c), *_ = np.linalg.lstsq(np.stack([2 * x, 2 * y, np.ones_like(x)], axis=1), x**2 + y**2, rcond=None)
    return np.array([centre[0] + a, centre[1] + b, np.sqrt(c + a**2 + b**2)])


def fit_rectangle(ends: Ends) -> tuple[Rectangle, float] | None:
    """The rectangle on whose sides most ends lie, and the share of all ends that it explains; None where a side is nowhere."""
    sides, explained = [], 0
    for side, (axis, outwards) in enumerate(((0, -1), (0, 1), (1, -1), (1, 1))):
        strips = slice(side * STRIPS, (side + 1) * STRIPS)
        valid = ends.valid[:, strips]
        places = np.where(valid, ends.points[:, strips, axis], np.nan)
        found = _side(places, int(valid.any(axis=0).sum()), outwards, float(ends.cell))
        if found is None:
            return None
        sides.append(found[0])
        explained += found[1]
    left, right, top, bottom = sides
    return (left, top, right, bottom), explained / int(ends.valid.any(axis=0).sum())


def _side(places: NDArray[np.float64], strips: int, outwards: int, tolerance: float) -> tuple[float, int] | None:
    """The outermost place that enough of the strips agree on, and how many do. `places` is (2, STRIPS), NaN for none."""
    candidates = places[np.isfinite(places)]
    near = np.abs(places[None] - candidates[:, None, None]) <= tolerance
    counts = near.any(axis=1).sum(axis=1)
    agreed = np.flatnonzero(counts >= max(_AGREEING * strips, 3))
    if not len(agreed):
        return None
    best = agreed[(candidates[agreed] * outwards).argmax()]
    return float(np.median(places[near[best]])), int(counts[best])
