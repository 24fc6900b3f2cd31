"""Shafts: where an instrument enters the field of view, how it lies, and which cells of a region belong to which of several."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Point = NDArray[np.float32]

_DIRECTIONS = 36
# A shaft is at least this many times as long as the border run through which it enters, and this many cells.
_LEAST_RATIO, _LEAST_LENGTH = 1.2, 7.0
# Cosine of the angle up to which two lines count as parallel: 25 degrees.
_PARALLEL = 0.906
# Rays that count as long: this share of the longest, within 45 degrees of it.
_LONG, _SPREAD = 0.7, 0.7
_ANGLES = np.arange(_DIRECTIONS, dtype=np.float32) * np.float32(2 * np.pi / _DIRECTIONS)
_RAYS: Point = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)


@dataclass(frozen=True, slots=True, eq=False)
class Shaft:
    """A straight line through a region in grid cells: start and unit direction (x, y), length, and half the width."""

    start: Point
    direction: Point
    length: float
    half_width: float

    def distances(self, points: Point) -> NDArray[np.float32]:
        """Return the distances of points (N, 2) to the line, in half widths; more beyond its end."""
        offset = points - self.start
        along = offset @ self.direction
        across = np.abs(offset[:, 0] * self.direction[1] - offset[:, 1] * self.direction[0])
        beyond = np.maximum(along - self.length, 0) + np.maximum(-along, 0)
        return np.asarray((across + 0.5 * beyond) / max(self.half_width, 1.0), np.float32)

    def is_along(self, point: Point, slack: float) -> bool:
        """Whether the endless line passes within `slack` cells of a point."""
        offset = point - self.start
        return abs(float(offset[0] * self.direction[1] - offset[1] * self.direction[0])) <= slack


def border(inside: NDArray[np.bool_]) -> Mask:
    """Return the outermost cells of the field of view: uint8 (h, w), 1 or 0."""
    field = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=[0])
    core = cv2.erode(field, np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    return np.asarray(inside.astype(np.uint8) - core, np.uint8)


def find_shafts(region: Mask, edge: Mask) -> list[Shaft]:
    """Return a shaft for each place where a region (uint8, 1 or 0) enters through the `edge`.

    One that passes right through is one shaft. A short contact without a shaft behind it does not count.
    """
    touching = cv2.bitwise_and(region, edge)
    if not touching.any():
        return []
    count, runs = cv2.connectedComponents(cv2.dilate(touching, np.ones((3, 3), np.uint8)))
    shafts: list[Shaft] = []
    for run in range(1, count):
        rows, columns = np.nonzero((runs == run) & (touching > 0))
        start = np.array([columns.mean(), rows.mean()], np.float32)
        width = float(np.hypot(np.ptp(columns), np.ptp(rows))) + 1
        shaft = _cast(region, start, width)
        if shaft.length >= max(_LEAST_RATIO * width, _LEAST_LENGTH):
            shafts.append(shaft)
    return _without_ends(shafts)


def _cast(region: Mask, start: Point, width: float) -> Shaft:
    """Follow rays from `start` inside the region, and take the mean of the longest."""
    height, columns = region.shape
    steps = np.arange(1, height + columns, dtype=np.float32)
    points = start + _RAYS[:, None] * steps[None, :, None]
    x, y = np.rint(points[..., 0]).astype(np.intp), np.rint(points[..., 1]).astype(np.intp)
    within = (x >= 0) & (x < columns) & (y >= 0) & (y < height)
    inside = within & (region[np.clip(y, 0, height - 1), np.clip(x, 0, columns - 1)] > 0)
    lengths = np.where(inside.all(axis=1), len(steps), inside.argmin(axis=1)).astype(np.float32)
    best = int(lengths.argmax())
    # In a wide shaft the longest rays are its diagonals: the mean of all long rays about them is its axis.
    about = (_RAYS @ _RAYS[best] > _SPREAD) & (lengths >= _LONG * lengths[best])
    direction = _RAYS[about].sum(axis=0)
    norm = float(np.linalg.norm(direction))
    direction = direction / norm if norm > 0 else _RAYS[best]
    across = abs(float(direction[0])), abs(float(direction[1]))
    return Shaft(start, direction.astype(np.float32), float(lengths[best]), max(width * max(min(across), 0.5) / 2, 1.0))


def _without_ends(shafts: list[Shaft]) -> list[Shaft]:
    """Drop the far end of a shaft that passes right through the field of view."""
    kept: list[Shaft] = []
    for shaft in sorted(shafts, key=lambda shaft: -shaft.length):
        if not any(_is_one(shaft, other) for other in kept):
            kept.append(shaft)
    return kept


def _is_one(one: Shaft, other: Shaft) -> bool:
    """Whether two shafts lie on one line, or enter side by side."""
    apart = float(np.linalg.norm(one.start - other.start))
    return in_line(one, other) or apart <= 1.5 * (one.half_width + other.half_width) + 3


def in_line(one: Shaft, other: Shaft) -> bool:
    """Whether the lines of two shafts are one, as far as their width lets tell."""
    if abs(float(one.direction @ other.direction)) < _PARALLEL:
        return False
    return any(a.is_along(b.start, 2 * a.half_width + 3) for a, b in ((one, other), (other, one)))


def split(region: Mask, shafts: list[Shaft]) -> list[Mask]:
    """Give every cell of a region to the shaft that it lies nearest to: a mask for each."""
    rows, columns = np.nonzero(region)
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    nearest = np.stack([shaft.distances(points) for shaft in shafts]).argmin(axis=0)
    parts = []
    for index in range(len(shafts)):
        part = np.zeros_like(region)
        part[rows[nearest == index], columns[nearest == index]] = 1
        parts.append(part)
    return parts
