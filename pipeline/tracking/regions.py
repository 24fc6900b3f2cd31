"""Divides the label map of a frame into the parts of instruments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.tracking.shafts import Mask, Shaft, find_shafts, in_line, split
from cliprl.pipeline.tracking.track import Track

# Cells of the smallest region that counts, and of the smallest part that is split off.
_SPECK, _LEAST = 8, 20
# Share of a region, or of what is expected of an instrument, that must coincide for the region to hold the instrument.
_OF_REGION, _OF_TRACK = 0.12, 0.4

# Cells from the nearest place where a track is expected, from which a shaft is another instrument's.
_FAR = 4.0
# Cells of distance that weigh as much as half a width beside the line, where instruments cross.
_REACH = 8.0
# Frames after which an instrument that is seen to be two is two.
_DOUBLED = 5


@dataclass(eq=False)
class Part:
    """A part of an instrument: mask uint8 (h, w), 1 or 0, of `cells` cells. key: the track that it continues, 0 for none.

    edge: the outermost cells of the field of view. whole: it is a region by itself, not one of several in a region. host: the
    track that it belongs to if it has no shaft and is no known instrument.
    """

    mask: Mask
    group: int
    key: int
    cells: int
    center: NDArray[np.float32]
    edge: Mask
    whole: bool = True
    host: int = 0

    @cached_property
    def shafts(self) -> list[Shaft]:
        """Where it enters the field of view."""
        return find_shafts(self.mask, self.edge)

    @property
    def has_shaft(self) -> bool:
        """Whether it enters through the edge of the field of view."""
        return bool(self.shafts)

    def piece_of(self, parts: list[Part]) -> Part | None:
        """Return the instrument that this part lies on the line of, if there is one: what is between them is hidden."""
        found = [
            (float(np.linalg.norm(shaft.start + shaft.direction * shaft.length - self.center)), part)
            for part in parts
            if part.key and part.group == self.group
            for shaft in part.shafts
            if self._continues(shaft)
        ]
        return min(found, key=lambda pair: pair[0])[1] if found else None

    def _continues(self, shaft: Shaft) -> bool:
        if self.shafts:
            return any(in_line(own, shaft) for own in self.shafts)
        return shaft.is_along(self.center, 3 * shaft.half_width + 3)


def find_parts(
    groups: NDArray[np.uint8], expected: NDArray[np.uint16], tracks: Mapping[int, Track], edge: Mask
) -> list[Part]:
    """Divide the map of groups (h, w) into parts; `expected` (h, w) has the keys of the tracks where they should be."""
    totals = np.bincount(expected.ravel())
    parts: list[Part] = []
    for group in np.flatnonzero(np.bincount(groups.ravel()))[1:] if groups.any() else ():
        count, components, stats, _ = cv2.connectedComponentsWithStats((groups == group).view(np.uint8))
        for index in range(1, count):
            if stats[index, cv2.CC_STAT_AREA] >= _SPECK:
                region = (components == index).view(np.uint8)
                parts += _divide(region, int(group), expected, totals, tracks, edge)
    return _without_doubles(parts, expected, tracks)


def _divide(
    region: Mask,
    group: int,
    expected: NDArray[np.uint16],
    totals: NDArray[np.intp],
    tracks: Mapping[int, Track],
    edge: Mask,
) -> list[Part]:
    counts = np.bincount(expected[region > 0], minlength=1)
    cells = int(counts.sum())
    keys = [
        key
        for key in np.flatnonzero(counts).tolist()
        if key in tracks
        and tracks[key].group == group
        and (counts[key] >= _OF_REGION * cells or counts[key] >= _OF_TRACK * totals[key])
    ]
    if not keys:
        return _by_shafts(_part(region, group, 0, edge))
    if len(keys) > 1 and not all(tracks[key].has_shaft for key in keys) and len(find_shafts(region, edge)) < len(keys):
        keys = _without_pieces(keys, tracks, counts)
    if len(keys) == 1 and cells - counts[keys[0]] < _LEAST:
        return [_part(region, group, keys[0], edge)]
    return _by_expectation(_part(region, group, 0, edge), keys, expected)


def _without_pieces(keys: list[int], tracks: Mapping[int, Track], counts: NDArray[np.intp]) -> list[int]:
    """Drop the instruments that turn out to be pieces of another: no shaft of theirs was ever seen."""
    kept = [key for key in keys if tracks[key].has_shaft]
    return kept or [max(keys, key=lambda key: int(counts[key]))]


def _by_shafts(whole: Part) -> list[Part]:
    """Divide a region that no track reaches among its shafts."""
    if len(whole.shafts) < 2:
        return [whole]
    masks = split(whole.mask, whole.shafts)
    return [_part(mask, whole.group, 0, whole.edge, whole=False) for mask in masks if mask.any()]


def _by_expectation(whole: Part, keys: list[int], expected: NDArray[np.uint16]) -> list[Part]:
    """Give each cell of a region to the track that is expected there, others to one nearby on whose line they lie.

    What is far from all of them is a part by itself.
    """
    inside, group, edge = whole.mask > 0, whole.group, whole.edge
    known = [((expected == key) & inside).view(np.uint8) for key in keys]
    distances = np.stack([cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3) for mask in known])
    far = inside & (distances.min(axis=0) > _FAR)
    is_new = np.count_nonzero(far) >= _LEAST
    if not is_new and len(keys) == 1:
        whole.key = keys[0]
        return [whole]
    owner = np.where(inside, np.array(keys, np.uint16)[_costs(known, distances).argmin(axis=0)], 0)
    for key, mask in zip(keys, known, strict=True):
        owner[mask > 0] = key
    host = int(np.bincount(owner[far]).argmax()) if is_new else 0
    if is_new:
        owner[far] = 0
    masks = [(key, (owner == key).view(np.uint8)) for key in keys]
    parts = [_part(mask, group, key, edge, whole=False) for key, mask in masks if mask.any()]
    if is_new:
        parts.append(_part(far.view(np.uint8), group, 0, edge, whole=False))
        parts[-1].host = host
    return parts


def _costs(known: list[Mask], distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cost of giving each cell to each track (n, h, w): how far it is from its cells and from their line."""
    if len(known) == 1:
        return distances
    rows, columns = np.indices(known[0].shape, np.float32)
    costs = distances / np.float32(_REACH)
    for cost, mask in zip(costs, known, strict=True):
        m = cv2.moments(mask, binaryImage=True)
        count = max(m["m00"], 1)
        angle = 0.5 * np.arctan2(2 * m["mu11"], m["mu20"] - m["mu02"])
        spread = (m["mu20"] + m["mu02"]) / 2 - np.hypot((m["mu20"] - m["mu02"]) / 2, m["mu11"])
        half_width = max(float(np.sqrt(max(spread, 0) / count)) * np.sqrt(3), 1.0)
        across = (columns - m["m10"] / count) * np.sin(angle) - (rows - m["m01"] / count) * np.cos(angle)
        cost += np.abs(across).astype(np.float32) / np.float32(half_width)
    return costs


def _part(mask: Mask, group: int, key: int, edge: Mask, *, whole: bool = True) -> Part:
    moments = cv2.moments(mask, binaryImage=True)
    cells = int(moments["m00"])
    center = np.array([moments["m10"], moments["m01"]], np.float32) / np.float32(max(cells, 1))
    return Part(mask, group, key, cells, center, edge, whole)


def _without_doubles(parts: list[Part], expected: NDArray[np.uint16], tracks: Mapping[int, Track]) -> list[Part]:
    """Where a track is in several parts for a while that each enter by another shaft, let it go on in one of them."""
    by_key: dict[int, list[Part]] = {}
    for part in parts:
        if part.key and part.cells >= _LEAST:
            by_key.setdefault(part.key, []).append(part)
    for key, held in by_key.items():
        found = [part for part in held if part.has_shaft] if len(held) > 1 else []
        if len(found) < 2:
            tracks[key].doubled = 0
            continue
        first, *others = sorted(found, key=lambda part: -np.count_nonzero(expected[part.mask > 0] == key))
        apart = [other for other in others if not any(in_line(a, b) for a in first.shafts for b in other.shafts)]
        tracks[key].doubled = tracks[key].doubled + 1 if apart else 0
        if tracks[key].doubled >= _DOUBLED:
            for other in apart:
                other.key = 0
    return parts
