"""Instruments in one region: which cell belongs to which of them, and what belongs to none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.tracking.appearance import COLOR_BINS, Appearance
from cliprl.pipeline.tracking.optical_flow import grid_indices
from cliprl.pipeline.tracking.shafts import Mask
from cliprl.pipeline.tracking.track import Track

# Color codes of cells: the color, and whether the class is that of a tip.
CODES = 2 * COLOR_BINS
# Cells of the smallest part that is split off.
SPLIT_CELLS = 20
# Cells from the nearest place where a track is expected, from which a cell is another instrument's.
_FAR = 4.0
# What it costs to give a cell to a track that is not expected there; cells of distance that cost as much as half a width beside
# its line; what a color costs.
_UNEXPECTED, _REACH, _COLOR = 0.5, 8.0, 0.35


@dataclass(frozen=True, slots=True, eq=False)
class CellMaps:
    """What is known of the cells of a frame, each (h, w).

    groups: uint8, the class group. tips: uint8, 1 for classes of tips. expected: the keys of tracks where they should be.
    edge: flat indices of the outermost cells of the field of view, in order around it.
    """

    groups: NDArray[np.uint8]
    tips: NDArray[np.uint8]
    expected: NDArray[np.uint16]
    edge: NDArray[np.intp]
    looks: Appearance | None

    def codes(self, inside: NDArray[np.bool_]) -> NDArray[np.uint8] | None:
        """Return the color codes of the cells `inside`: uint8 (n,), below `CODES`; None if the image is unknown."""
        if self.looks is None:
            return None
        return np.asarray(self.looks.colors[inside] * 2 + self.tips[inside], np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """owner: uint16 (h, w), the key of the track that each cell of the region belongs to, else 0.

    others: masks of what belongs to none of them, with the key of the track that it lies beside.
    """

    owner: NDArray[np.uint16]
    others: list[tuple[Mask, int]]


def share_cells(region: Mask, keys: Sequence[int], maps: CellMaps, tracks: Mapping[int, Track]) -> Shares:
    """Divide a region (uint8, 1 or 0) among the tracks that are expected in it, by place, line and color.

    What is far from all of them belongs to none.
    """
    inside = region > 0
    known = [((maps.expected == key) & inside).view(np.uint8) for key in keys]
    distances = np.stack([cv2.distanceTransform(1 - mask, cv2.DIST_L2, 3) for mask in known])
    nearest = distances.min(axis=0)
    owner = np.where(inside, np.uint16(keys[0]), np.uint16(0))
    if len(keys) > 1:
        costs = _costs(inside, known, distances, [tracks[key] for key in keys], maps.codes(inside))
        owner[inside] = np.array(keys, np.uint16)[costs[:, inside].argmin(axis=0)]
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
    inside: NDArray[np.bool_],
    known: list[Mask],
    distances: NDArray[np.float32],
    tracks: list[Track],
    codes: NDArray[np.uint8] | None,
) -> NDArray[np.float32]:
    """Return the cost of giving each cell to each track (n, h, w), averaged over neighboring cells."""
    rows, columns = grid_indices(*inside.shape)
    weight = np.maximum(cv2.blur(inside.astype(np.float32), (3, 3)), np.float32(0.1))
    costs = np.empty_like(distances)
    for cost, mask, distance, track in zip(costs, known, distances, tracks, strict=True):
        base = cv2.scaleAdd(distance, 1 / _REACH, _beside_line(mask, rows, columns)) + np.float32(_UNEXPECTED)
        np.copyto(base, 0, where=mask > 0)
        colors = None if codes is None else track.color_costs(codes)
        if colors is not None:
            base[inside] += np.float32(_COLOR) * colors
        np.copyto(base, 0, where=~inside)
        np.divide(cv2.blur(base, (3, 3)), weight, out=cost)
    return costs


def _beside_line(mask: Mask, rows: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how far each cell lies beside the long axis of a mask, in half widths."""
    m = cv2.moments(mask, binaryImage=True)
    count = max(m["m00"], 1)
    angle = 0.5 * math.atan2(2 * m["mu11"], m["mu20"] - m["mu02"])
    spread = (m["mu20"] + m["mu02"]) / 2 - math.hypot((m["mu20"] - m["mu02"]) / 2, m["mu11"])
    half_width = max(math.sqrt(max(spread, 0) / count) * math.sqrt(3), 1.0)
    y, x = math.cos(angle) / half_width, math.sin(angle) / half_width
    offset = m["m10"] / count * x - m["m01"] / count * y
    return np.abs(columns * np.float32(x) - rows * np.float32(y) - np.float32(offset))
