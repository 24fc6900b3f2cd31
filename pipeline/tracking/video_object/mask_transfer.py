"""Masks between the network's grid, the frame, and the square input of a video object network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.segmentation import Followed, FollowState, Instance, Instances, Segmentation
from cliprl.pipeline.core.viewport import Viewport, frame_to_network, inside_cells, network_to_frame
from cliprl.pipeline.segment.decision import SMALLEST
from cliprl.pipeline.tracking.id_map import ids_at

_RING = np.ones((3, 3), np.uint8)


def square_view(view: Viewport, side: int) -> Viewport:
    """Return the view that scales the crop of another onto a square, whose aspect may differ."""
    return Viewport(view.frame_height, view.frame_width, side, side, view.crop, (0, 0, side, side))


def mask_in(view: Viewport, found: Segmentation, number: int) -> NDArray[np.bool_]:
    """Return the mask of an instrument in a square view: bool (side, side)."""
    left, top, width, height = view.crop
    mask = ids_at(found, view.frame_height, view.frame_width)[top : top + height, left : left + width] == number
    size = view.network_width, view.network_height
    return np.asarray(cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) >= 0.5)


def share_on_grid(
    logits: NDArray[np.float32], square: Viewport, view: Viewport, grid: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the probability of the object at each cell of the network's grid, from logits (h, w) over a square view.

    0 outside the field of view of `view`.
    """
    probability = 1 / (1 + np.exp(-logits.clip(-30, 30)))
    to_frame, to_square = network_to_frame(view), frame_to_network(square)
    scale = np.array(logits.shape[::-1]) / (square.network_width, square.network_height)
    matrix = np.diag(scale) @ to_square[:, :2] @ to_frame
    matrix[:, 2] += scale * to_square[:, 2]
    matrix[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5  # from pixel edges to pixel centers
    size = view.network_width, view.network_height
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(probability, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    cells = cv2.resize(fine, grid[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cells * inside_cells(view, *grid), np.float32)


@dataclass(frozen=True, slots=True)
class FollowedClasses:
    """The followed instrument: its number, its name and likeliest class, and the ids of the classes of its group."""

    number: int
    name: str
    class_id: int
    members: tuple[int, ...]


def with_mask(found: Segmentation, share: NDArray[np.float32], target: FollowedClasses) -> Segmentation:
    """Return a segmentation in which the followed instrument is where `share`, float32 (h, w), is above 0.5.

    There it takes the place of all else; cells that it loses get their likeliest class of the others. Other cells stay.
    """
    assert found.instances is not None
    ids, mine = found.instances.ids, share > 0.5
    changed = mine | (ids == target.number)
    near = cv2.dilate(changed.view(np.uint8), _RING).view(np.bool_)
    free = (ids == 0) & ~np.isin(found.likeliest.labels, target.members)
    changed |= near & free
    likeliest = _redivided(found.likeliest, share, changed, target.members, target.class_id)
    # Our network's doubt about the frame stays as it is.
    result = likeliest = replace(likeliest, _reliability=found.reliability)
    if found.unmerged is not None:
        union = len(found.probabilities) - 1
        members = (*target.members, union) if set(target.members) & set(found.parts) else target.members
        result = replace(_redivided(found, share, changed, members, target.class_id), unmerged=likeliest)
    numbers = np.where(mine, np.uint16(target.number), np.where(ids == target.number, np.uint16(0), ids))
    result.instances = _instances(found.instances, numbers, result, target)
    return result


def _redivided(
    found: Segmentation,
    share: NDArray[np.float32],
    cells: NDArray[np.bool_],
    members: tuple[int, ...],
    default: int,
) -> Segmentation:
    """Return a segmentation whose `cells` have one of the classes `members` where `share` is above 0.5, and no other where not.

    The shares within the members and within the others stay; of members without probability, `default` has it all.
    """
    before = found.probabilities[:, cells]
    chosen = np.isin(np.arange(len(before)), members)
    parts = _within(before[chosen], members.index(default) if default in members else 0)
    rest = _within(before[~chosen], 0)
    # The largest of either group are equal where the share is a half, however many classes divide the groups.
    ours, theirs = share[cells] * rest.max(axis=0), (1 - share[cells]) * parts.max(axis=0)
    total = np.maximum(ours + theirs, SMALLEST)
    after = np.empty_like(before)
    after[chosen], after[~chosen] = parts * (ours / total), rest * (theirs / total)
    probabilities, labels = found.probabilities.copy(), found.labels.copy()
    probabilities[:, cells] = after
    winners = np.where(share[cells] > 0.5, _best(after, chosen), _best(after, ~chosen))
    labels[cells] = winners * inside_cells(found.view, *labels.shape)[cells]
    return replace(found, labels=labels, probabilities=probabilities)


def _within(chances: NDArray[np.float32], default: int) -> NDArray[np.float32]:
    """Return the shares of classes (k, n) in their sum; where that is 0, class `default` has it all."""
    total = chances.sum(axis=0)
    shares = chances / np.maximum(total, SMALLEST)
    shares[:, total <= SMALLEST] = (np.arange(len(chances)) == default)[:, None]
    return np.asarray(shares, np.float32)


def _best(chances: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.asarray(np.flatnonzero(chosen)[chances[chosen].argmax(axis=0)], np.uint8)


def _instances(
    before: Instances, numbers: NDArray[np.uint16], found: Segmentation, target: FollowedClasses
) -> Instances:
    """Return the instruments of a new map of numbers; those that have lost all cells are left out."""
    items = {item.id: item for item in before.items}
    items.setdefault(target.number, Instance(target.number, target.name, target.class_id, 0))
    counts = np.bincount(numbers.ravel(), minlength=max(items) + 1)
    kept = [replace(items[number], cells=int(counts[number])) for number in sorted(items) if counts[number]]
    mine = found.labels[numbers == target.number]
    class_id = int(np.bincount(mine).argmax()) if mine.size else target.class_id
    kept = [replace(item, class_id=class_id) if item.id == target.number else item for item in kept]
    state = FollowState.FOLLOWING if mine.size else FollowState.LOST
    return Instances(numbers, tuple(kept), Followed(state, target.number))
