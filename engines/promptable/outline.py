"""The outline of a corrected mask: it moves with a click in a thin error, and settles on the edges of the image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# The outline moves with a click that lies at most so far from it, by this share of the way to the error's other side, with a
# Gaussian around the click: in pixels of the network input's longer side, which has `_LONGER` of them.
_THIN, _MOVE, _SPREAD, _LONGER = 6.0, 0.5, 30.0, 320.0
# Share of the head's answer in the mask after such a click; the rest is the moved mask.
ANSWER_SHARE = 0.7
# The cut decides in pixels at most `_BAND` from the outline, by the image of half the size up to `_AROUND` pixels around all of
# them, and with a weight of one logit.
_BAND, _VOTE, _CLIP, _AROUND = 2.0, 1.0, 4.0, 8
# Parts without a positive click are left out below these shares of the largest part, and of the image.
_PART, _SPECK = 0.1, 1 / 160
_LEFT_OUT = -1.0

_Map = NDArray[np.float32]


def moved_outline(logits: _Map, point: NDArray[np.floating], positive: bool, pixels: int) -> _Map:
    """Return `logits` (h, w) whose outline near `point` (x, y), in cells, lies beyond it. `pixels`: those of a cell's side.

    Whole objects are often segmented or labeled a few pixels beside their place: a click in the center of the error shows
    by how many. The object moves there, but no other one. A click far from the outline or where the mask is right has no effect.
    """
    height, width = (side * pixels for side in logits.shape)
    scale = max(height, width) / _LONGER
    large = np.asarray(cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    object_ = large > 0
    wrong = (object_ != positive).astype(np.uint8)
    column, row = (min(max(int(at * pixels), 0), side - 1) for at, side in zip(point, (width, height), strict=True))
    if not wrong[row, column] or wrong.all():
        return logits
    distances, nearest = cv2.distanceTransformWithLabels(wrong, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    reach = float(distances[row, column])
    if reach > _THIN * scale:
        return logits
    edge_row, edge_column = np.argwhere((nearest == nearest[row, column]) & (wrong == 0))[0]
    way = np.array([column - edge_column, row - edge_row], np.float32)
    way *= 2 * _MOVE * (reach - 0.5) / max(float(np.hypot(*way)), 1.0)
    _, parts = cv2.connectedComponents(object_.astype(np.uint8), connectivity=8)
    others = object_ & (parts != (parts[edge_row, edge_column] if positive else parts[row, column]))
    alone = np.where(others, np.float32(_LEFT_OUT), large)
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    near = np.exp(-0.5 * ((y - row)[:, None] ** 2 + (x - column) ** 2) / (_SPREAD * scale) ** 2).astype(np.float32)
    moved = cv2.remap(
        alone, x - way[0] * near, y[:, None] - way[1] * near, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    moved = np.where(others, np.maximum(moved, large), moved)
    return np.asarray(cv2.resize(moved, logits.shape[::-1], interpolation=cv2.INTER_AREA), np.float32)


def settled_outline(
    logits: _Map, image: NDArray[np.uint8], points: NDArray[np.floating], labels: NDArray[np.integer]
) -> _Map:
    """Return `logits` (h, w) with the outline nearer to edges of `image` uint8 (H, W, 3), and without small parts.

    points (N, 2) with labels (N,) are in cells. GrabCut with the colors of object and background decides near the outline.
    Without any outline nothing changes.
    """
    size = image.shape[1] // 2, image.shape[0] // 2
    small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    large = np.clip(cv2.resize(logits, size, interpolation=cv2.INTER_LINEAR), -_CLIP, _CLIP)
    cells = np.asarray(points) * np.array(size) / logits.shape[::-1]
    columns, rows = np.clip(cells.astype(int), 0, np.array(size) - 1).T
    trimap = _trimap(large > 0)
    trimap[rows, columns] = np.where(np.asarray(labels) > 0, cv2.GC_FGD, cv2.GC_BGD)
    if not (trimap >= cv2.GC_PR_BGD).any():
        return logits
    _cut(small, trimap)
    large += np.where(trimap & 1, np.float32(_VOTE), np.float32(-_VOTE))
    large[_small_parts(large > 0, rows[np.asarray(labels) > 0], columns[np.asarray(labels) > 0])] = _LEFT_OUT
    settled = cv2.resize(large, logits.shape[::-1], interpolation=cv2.INTER_AREA)
    # What was certain keeps its logits, which frames that follow rely on.
    return np.where((np.abs(logits) > _CLIP) & ((settled > 0) == (logits > 0)), logits, settled).astype(np.float32)


def _cut(image: NDArray[np.uint8], trimap: NDArray[np.uint8]) -> None:
    """Decide in the possible pixels of `trimap`, in place, by GrabCut on the image around them. Repeats are identical."""
    undecided = trimap >= cv2.GC_PR_BGD
    around = tuple(
        slice(max(int(at[0]) - _AROUND, 0), int(at[-1]) + _AROUND + 1)
        for at in (np.flatnonzero(undecided.any(axis=1)), np.flatnonzero(undecided.any(axis=0)))
    )
    part = np.ascontiguousarray(trimap[around])
    if not 0 < np.count_nonzero(part & 1) < part.size:
        return
    cv2.setRNGSeed(0)
    models: tuple[NDArray[Any], NDArray[Any]] = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(image[around]), part, [0, 0, 1, 1], *models, 1, cv2.GC_INIT_WITH_MASK)
    trimap[around] = part


def _trimap(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return GrabCut's labels of a mask, certain where the outline is far."""
    far = [cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 3) > _BAND for side in (mask, ~mask)]
    possible = np.where(mask, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    return np.select(far, [cv2.GC_FGD, cv2.GC_BGD], possible).astype(np.uint8)


def _small_parts(mask: NDArray[np.bool_], rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the parts of a mask that are small and hold none of the places."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    small = areas < min(_PART * areas[1:].max(initial=0), _SPECK * mask.size)
    small[0], small[parts[rows, columns]] = False, False
    return np.asarray(small[parts] if count > 1 else np.zeros_like(mask))
