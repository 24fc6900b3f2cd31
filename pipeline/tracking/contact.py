"""Instruments in one region: which cell belongs to which of them, and what belongs to none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, reduce
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.tracking.appearance import Appearance
from cliprl.pipeline.tracking.groups import TIP
from cliprl.pipeline.tracking.shafts import Mask, border
from cliprl.pipeline.tracking.track import Track

# Cells of the smallest part that is split off.
SPLIT_CELLS = 20
# Cells from the nearest place where a track is expected, from which a cell is another instrument's.
_FAR = 4.0
# What it costs to give a cell to a track that is not expected there; cells of distance that cost as much as half a width beside
# its line; what a color costs.
_UNEXPECTED, _REACH, _COLOR = 0.5, 8.0, 0.35
# Two frames are much alike: cells by which an instrument may grow, share of its cells by which their number may change, share of
# the cells of all instruments that may be others.
_STEP, _CHANGE, _MOVED = 4.0, 0.4, 0.14
# How much less a cell must cost by its color than for others to be clearly of a track, and all of its part in the mean.
_LIKELIER, _CLEARLY = 0.3, 0.85

# Flat indices of the cells of instruments, and their keys.
Divided = tuple[NDArray[np.intp], NDArray[np.uint16]]


@dataclass(frozen=True, eq=False)
class CellMaps:
    """What is known of the cells of a frame, each (h, w).

    groups: uint8, the class group. kinds: uint8, the kind of the class in its group. edge: flat indices of the outermost cells of
    the field of view, in order around it.
    """

    groups: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    edge: NDArray[np.intp]
    looks: Appearance | None

    @cached_property
    def tips(self) -> Mask:
        """uint8, 1 for classes of tips."""
        return np.asarray(self.kinds == TIP).view(np.uint8)

    @cached_property
    def codes(self) -> NDArray[np.uint8] | None:
        """The color code of each cell, uint8: its color and the kind of its class. None if the image is unknown."""
        return None if self.looks is None else np.asarray(self.looks.colors * 4 + self.kinds, np.uint8)


class NearestKeys:
    """Divides frames that are much like one that was divided: each cell goes to the track of its group that was nearest to it."""

    def __init__(self, last: NDArray[np.uint16], tracks: Mapping[int, Track]) -> None:
        """Take the map of keys of that frame, (h, w)."""
        self._last, self._tracks = last, tracks
        self._held = np.bincount(last.ravel(), minlength=max(tracks, default=0) + 1)
        self._nearest: dict[int, NDArray[np.uint16]] = {}

    def divide(self, groups: NDArray[np.uint8]) -> Divided | None:
        """Divide the cells that have a group (h, w): return their flat indices and keys, or None for another frame."""
        (cells,) = (groups.ravel() != 0).nonzero()
        keys, own = self._last.take(cells), groups.ravel().take(cells)
        new = cells[keys == 0]
        before = int(self._held[1:].sum())
        if before - len(cells) + 2 * len(new) > _MOVED * before:
            return None
        if len(new) > SPLIT_CELLS / 2 and np.count_nonzero(self._awaited.take(new)) > SPLIT_CELLS / 2:
            return None
        (changed,) = (own != self._group_of.take(keys)).nonzero()
        for group in np.bincount(own.take(changed)).nonzero()[0].tolist():
            places = changed[own.take(changed) == group]
            keys[places] = self._nearest_of(group).take(cells.take(places))
        changes = np.abs(np.bincount(keys, minlength=len(self._held)) - self._held)[1:]
        return None if (changes > np.maximum(_CHANGE * self._held[1:], SPLIT_CELLS / 2)).any() else (cells, keys)

    @cached_property
    def _awaited(self) -> Mask:
        """uint8 (h, w), not 0 where a hidden instrument may return."""
        places = [track.around_place() for track in self._tracks.values() if track.place is not None]
        return reduce(np.bitwise_or, places, np.zeros(self._last.shape, np.uint8))

    @cached_property
    def _group_of(self) -> NDArray[np.uint8]:
        """The group of each key."""
        groups = np.zeros(len(self._held), np.uint8)
        groups[list(self._tracks)] = [track.group for track in self._tracks.values()]
        return groups

    def _nearest_of(self, group: int) -> NDArray[np.uint16]:
        """Return the key of the nearest track of a group at each cell, 0 where none is near: uint16 (h, w)."""
        if group not in self._nearest:
            (keys,) = ((self._group_of == group) & (self._held > 0)).nonzero()
            self._nearest[group] = self._spread(keys) if len(keys) else np.zeros_like(self._last)
        return self._nearest[group]

    def _spread(self, keys: NDArray[np.intp]) -> NDArray[np.uint16]:
        """Return the nearest of all keys of a group at each cell, 0 where none is near: uint16 (h, w)."""
        if len(keys) == 1:
            # Without labels it takes a tenth of the time.
            distance = cv2.distanceTransform((self._last != keys[0]).view(np.uint8), cv2.DIST_L2, 3)
            return np.asarray((distance <= _STEP) * np.uint16(keys[0]), np.uint16)
        free = (self._group_of.take(self._last) != self._group_of[keys[0]]).view(np.uint8)
        distance, number = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
        (held,) = (free.ravel() == 0).nonzero()
        values = np.zeros(len(held) + 1, np.uint16)
        values[number.ravel().take(held)] = self._last.ravel().take(held)
        return np.asarray(values.take(number) * (distance <= _STEP), np.uint16)


@lru_cache(maxsize=8)
def field_edge(view: Viewport, rows: int, columns: int) -> NDArray[np.intp]:
    """Return the flat indices of the outermost cells of the field of view, in order around it."""
    return border(inside_cells(view, rows, columns))


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """owner: uint16 (h, w), the key of the track that each cell of the region belongs to, else 0.

    others: masks of what belongs to none of them, with the key of the track that it lies beside.
    """

    owner: NDArray[np.uint16]
    others: list[tuple[Mask, int]]


def share_cells(
    region: Mask, keys: Sequence[int], expected: NDArray[np.uint16], maps: CellMaps, tracks: Mapping[int, Track]
) -> Shares:
    """Divide a region (uint8, 1 or 0) among the tracks that are expected in it, by place, line and color.

    expected: the keys of tracks where they should be, (h, w). What is far from all of them belongs to none.
    """
    box = _box(region)
    codes = maps.codes[box] if len(keys) > 1 and maps.codes is not None else None
    shares = _share_box(region[box].view(np.bool_), expected[box], {key: tracks[key] for key in keys}, codes)
    owner = np.zeros(region.shape, np.uint16)
    owner[box] = shares.owner
    others: list[tuple[Mask, int]] = []
    for part, host in shares.others:
        others.append((np.zeros_like(region), host))
        others[-1][0][box] = part
    return Shares(owner, others)


def of_its_colors(place: Mask, least: float, track: Track, other: Track, maps: CellMaps) -> Mask | None:
    """Return the largest connected part of a mask whose colors are clearly those of a track rather than of another.

    None if it has fewer cells than `least`.
    """
    if track.color_costs is None or other.color_costs is None or maps.codes is None or cv2.countNonZero(place) < least:
        return None
    gains = other.color_costs - track.color_costs
    likelier = place & np.asarray(cv2.LUT(maps.codes, (gains > _LIKELIER).view(np.uint8)), np.uint8)
    if cv2.countNonZero(likelier) < least:
        return None
    _, components, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(likelier, 8, cv2.CV_32S, cv2.CCL_BBDT)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if areas.max() < least:
        return None
    mask = (components == areas.argmax() + 1).view(np.uint8)
    return mask if float(gains.take(maps.codes[mask.view(np.bool_)]).mean()) >= _CLEARLY else None


def _box(region: Mask) -> tuple[slice, slice]:
    """Return the rows and columns of a region with one more on each side."""
    x, y, width, height = cv2.boundingRect(region)
    return slice(max(y - 1, 0), y + height + 1), slice(max(x - 1, 0), x + width + 1)


def _share_box(
    inside: NDArray[np.bool_],
    expected: NDArray[np.uint16],
    tracks: Mapping[int, Track],
    codes: NDArray[np.uint8] | None,
) -> Shares:
    """Divide a region as `share_cells` does, in a box around it."""
    known = [((expected == key) & inside).view(np.uint8) for key in tracks]
    distances = [cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3) for mask in known]
    nearest = reduce(np.minimum, distances)
    first, *rest = tracks
    owner = inside * np.uint16(first)
    if rest:
        within = inside.astype(np.float32)
        each = zip(known, distances, tracks.values(), strict=True)
        least, *costs = [_costs(within, mask, distance, track, codes) for mask, distance, track in each]
        for key, cost in zip(rest, costs, strict=True):
            owner[inside & (cost < least)] = key
            least = np.minimum(least, cost)
    others: list[tuple[Mask, int]] = []
    far = (inside & (nearest > _FAR)).view(np.uint8)
    if np.count_nonzero(far) >= SPLIT_CELLS:
        count, components, stats, _ = cv2.connectedComponentsWithStats(far)
        for index in range(1, count):
            if stats[index, cv2.CC_STAT_AREA] >= SPLIT_CELLS:
                core = (components == index).view(np.uint8)
                host = int(np.bincount(owner[core > 0]).argmax())
                mask = inside & (cv2.distanceTransform(1 - core, cv2.DIST_L2, 3) < nearest)
                owner[mask] = 0
                others.append((mask.view(np.uint8), host))
    return Shares(owner, others)


def _costs(
    inside: NDArray[np.float32],
    known: Mask,
    distance: NDArray[Any],
    track: Track,
    codes: NDArray[np.uint8] | None,
) -> NDArray[np.float32]:
    """Return the cost (h, w) of giving each cell to a track, summed over neighboring cells.

    known: where it is expected. distance: how far each cell is from there.
    """
    costs = np.asarray(cv2.scaleAdd(distance, 1 / _REACH, beside_line(known)), np.float32)
    costs += np.float32(_UNEXPECTED)
    costs[known.view(np.bool_)] = 0
    if track.color_costs is not None and codes is not None:
        costs += np.asarray(cv2.LUT(codes, np.float32(_COLOR) * track.color_costs), np.float32)
    costs *= inside
    return np.asarray(cv2.blur(costs, (3, 3)), np.float32)


def beside_line(mask: Mask) -> NDArray[np.float32]:
    """Return how far each cell lies beside the long axis of a mask, in half widths."""
    x, y, offset = long_axis(cv2.moments(mask, binaryImage=True))
    rows, columns = (np.arange(count, dtype=np.float32) for count in mask.shape)
    across = columns * np.float32(x) - np.float32(offset) - rows[:, None] * np.float32(y)
    return np.abs(across, out=across)


def half_width_of(axis: tuple[float, float, float]) -> float:
    """Return half the width of a mask with a `long_axis`."""
    return 1 / math.hypot(axis[0], axis[1])


def long_axis(m: Mapping[str, float]) -> tuple[float, float, float]:
    """Return x, y and offset for the long axis of a mask of moments `m`.

    column * x - row * y - offset is how far a cell lies beside it, in half widths.
    """
    count = max(m["m00"], 1)
    angle = 0.5 * math.atan2(2 * m["mu11"], m["mu20"] - m["mu02"])
    spread = (m["mu20"] + m["mu02"]) / 2 - math.hypot((m["mu20"] - m["mu02"]) / 2, m["mu11"])
    half_width = max(math.sqrt(max(spread, 0) / count) * math.sqrt(3), 1.0)
    y, x = math.cos(angle) / half_width, math.sin(angle) / half_width
    return x, y, m["m10"] / count * x - m["m01"] / count * y
