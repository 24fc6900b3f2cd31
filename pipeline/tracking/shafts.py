"""Shafts: where an instrument enters the field of view, how it lies, and which cells of a region belong to which of several."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.uint8]
Point = NDArray[np.float32]

_DIRECTIONS = 32
# A shaft is at least this many times as long as the border run through which it enters, and this many cells.
_LEAST_RATIO, _LEAST_LENGTH = 1.2, 7.0
# Cells of the border between two contacts with a region that are one contact.
_GAP = 3
# Cosine of the angle up to which two lines count as parallel: 25 degrees.
_PARALLEL = 0.906
# Rays that count as long: this share of the longest, within 45 degrees of it.
_LONG, _SPREAD = 0.7, 0.7
# Share of the line between two entries that lies in the region of a shaft that passes right through.
_THROUGH = 0.9
# Cosine of the angle between the arms of a bend, at most, and the distance of their ends beyond their half widths in cells.
_OPPOSITE, _BEND = -0.6, 4.0
# Share of its width from which a shaft is whole.
_CUT_OFF = 0.6
_ANGLES = np.arange(_DIRECTIONS, dtype=np.float32) * np.float32(2 * np.pi / _DIRECTIONS)
_RAYS: Point = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)
# Moves a ray that runs between two rows of cells into one of them.
_ASIDE = np.float32(1e-3)
_SQUARE = np.ones((3, 3), np.uint8)


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

    def distance(self, point: Point) -> float:
        """Return the distance of a point to the line between its start and its end, in cells."""
        along = min(max(float((point - self.start) @ self.direction), 0.0), self.length)
        return math.hypot(*(point - self.start - along * self.direction).tolist())

    def is_along(self, point: Point, slack: float) -> bool:
        """Whether the endless line passes within `slack` cells of a point."""
        offset = point - self.start
        return abs(float(offset[0] * self.direction[1] - offset[1] * self.direction[0])) <= slack


def border(inside: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the flat indices of the outermost cells of the field of view (h, w), in order around it."""
    field = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=[0])
    core = cv2.erode(field, _SQUARE)[1:-1, 1:-1]
    cells = np.flatnonzero(inside & (core == 0))
    rows, columns = np.divmod(cells, inside.shape[1])
    angles = np.arctan2(rows - rows.mean(), columns - columns.mean()) if len(cells) else rows
    return cells[np.argsort(angles, kind="stable")]


def contacts(region: Mask, edge: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Return the runs of `edge` cells (flat indices in order around the field of view) that a region reaches to within a cell."""
    (touched,) = _wider(region).ravel()[edge].nonzero()
    if not len(touched):
        return []
    (cuts,) = (touched[1:] - touched[:-1] > _GAP + 1).nonzero()
    if not len(cuts):
        return [edge[touched]]
    runs = np.split(touched, cuts + 1)
    if len(runs) > 1 and touched[0] + len(edge) - touched[-1] <= _GAP + 1:
        runs[0] = np.concatenate([runs.pop(), runs[0]])
    return [edge[run] for run in runs]


def find_shafts(region: Mask, runs: list[NDArray[np.intp]]) -> list[Shaft]:
    """Return a shaft for each of the `contacts` of a region (uint8, 1 or 0) with the edge of the field of view.

    One that passes right through is one shaft. A short contact without a shaft behind it does not count.
    """
    shafts: list[Shaft] = []
    wide = _wider(region) if runs else region
    for run in runs:
        start, width = middle_of(run, region.shape[1])
        shaft = _cast(wide, start, width)
        if shaft.length >= max(_LEAST_RATIO * width, _LEAST_LENGTH):
            shafts.append(shaft)
    return _without_ends(shafts, wide)


def middle_of(run: NDArray[np.intp], columns: int) -> tuple[Point, float]:
    """Return the middle (x, y) of a run of cells (flat indices into a grid of `columns`), and its extent."""
    rows, places = zip(*(divmod(cell, columns) for cell in run.tolist()), strict=True)
    middle = np.array([sum(places), sum(rows)], np.float32) / np.float32(len(run))
    return middle, math.hypot(max(places) - min(places), max(rows) - min(rows)) + 1


def _cast(region: Mask, start: Point, width: float) -> Shaft:
    """Follow rays from `start` inside the region, and take the mean of the longest."""
    left, top, columns, rows = cv2.boundingRect(region)
    far = max(start[0] - left, left + columns - start[0]), max(start[1] - top, top + rows - start[1])
    x, y = _reached(*region.shape)[..., : math.ceil(math.hypot(*far)) + 2]
    # Beyond its box there is no region: each ray ends there at the latest.
    along = cv2.remap(region, x + (start[0] + _ASIDE), y + (start[1] + _ASIDE), cv2.INTER_NEAREST)
    lengths = np.asarray(along).argmin(axis=1).astype(np.float32)
    best = int(lengths.argmax())
    # In a wide shaft the longest rays are its diagonals: the mean of all long rays about them is its axis.
    about = (_RAYS @ _RAYS[best] > _SPREAD) & (lengths >= _LONG * lengths[best])
    direction = _RAYS[about].sum(axis=0)
    norm = math.hypot(float(direction[0]), float(direction[1]))
    direction = direction / norm if norm > 0 else _RAYS[best]
    across = abs(float(direction[0])), abs(float(direction[1]))
    return Shaft(start, direction.astype(np.float32), float(lengths[best]), max(width * max(min(across), 0.5) / 2, 1.0))


@lru_cache(maxsize=8)
def _reached(rows: int, columns: int) -> Point:
    """Return where the rays are after each step of a cell, until they have left the grid: x and y, (2, directions, steps)."""
    steps = np.arange(1, math.ceil(math.hypot(rows, columns)) + 2, dtype=np.float32)
    return np.ascontiguousarray((_RAYS[:, None] * steps[None, :, None]).transpose(2, 0, 1))


def _wider(region: Mask) -> Mask:
    return np.asarray(cv2.dilate(region, _SQUARE), np.uint8)


def _without_ends(shafts: list[Shaft], region: Mask) -> list[Shaft]:
    """Drop the far end of a shaft that passes right through the field of view."""
    kept: list[Shaft] = []
    for shaft in sorted(shafts, key=lambda shaft: -shaft.length):
        if not any(are_one(shaft, other) or _passes_through(shaft, other, region) for other in kept):
            kept.append(shaft)
    return kept


def are_one(one: Shaft, other: Shaft) -> bool:
    """Whether two shafts lie on one line, enter side by side, or are the arms of one that bends."""
    return in_line(one, other) or entry_distance(one, other) <= 1 or _is_bend(one, other)


def _is_bend(one: Shaft, other: Shaft) -> bool:
    """Whether two shafts come towards each other, and each ends beside the other."""
    reach = one.half_width + other.half_width + _BEND
    ends = [(a.start + a.direction * a.length, b) for a, b in ((one, other), (other, one))]
    return float(one.direction @ other.direction) < _OPPOSITE and all(b.distance(end) <= reach for end, b in ends)


def _passes_through(one: Shaft, other: Shaft, region: Mask) -> bool:
    """Whether the straight line between two entries lies within the region."""
    share = np.linspace(0, 1, 32, dtype=np.float32)[:, None]
    columns, rows = np.rint(one.start + share * (other.start - one.start)).astype(np.intp).T
    return float(region[rows, columns].mean()) >= _THROUGH


def entry_distance(one: Shaft, other: Shaft) -> float:
    """Return how far apart two shafts enter; up to 1 they enter side by side."""
    apart = math.hypot(*(one.start - other.start).tolist())
    return apart / (1.5 * (one.half_width + other.half_width) + 3)


def in_line(one: Shaft, other: Shaft) -> bool:
    """Whether the lines of two shafts are one, as far as their width lets tell."""
    if abs(float(one.direction @ other.direction)) < _PARALLEL:
        return False
    return any(a.is_along(b.start, 2 * a.half_width + 3) for a, b in ((one, other), (other, one)))


def same_entry(one: Shaft, other: Shaft) -> bool:
    """Whether two shafts, seen at different times, enter at one place in one direction."""
    return entry_distance(one, other) <= 1 and float(one.direction @ other.direction) >= _PARALLEL


def is_cut_off(shaft: Shaft, known: Shaft) -> bool:
    """Whether a shaft is what is left of a known one that is partly hidden: it enters there, but is much narrower."""
    return shaft.half_width < _CUT_OFF * known.half_width and entry_distance(shaft, known) <= 1


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
