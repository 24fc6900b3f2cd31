"""Maps that tell the promptable head what its newest click means, and where the frame looks as the object does."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

# Channels of the hints: around the newest click, the cells that it holds for, the appearance in the frame and near that click.
HINTS = 4
# Standard deviations, in cells, of the surroundings of the newest click, and of those whose appearance it is compared in.
_SURROUNDINGS, _NEIGHBORHOOD = 8.0, 12.0
# Weights of the cells that the newest click holds for, and of those at all clicks, against the other cells of the same kind.
_HELD, _CLICKED = 0.5, 0.3
_RIDGE = 0.02
_LEAST = 1e-4
# Cells in one matrix product. OpenBLAS gives larger ones several threads, which wait for each other in a loop: up to 300 ms in
# place of 9 where other programs use the processors.
_ROWS = 64

_Map = NDArray[np.float32]


def cell_descriptors(features: NDArray[Any], image: NDArray[np.uint8]) -> _Map:
    """Return the descriptors float32 (h * w, N) of all cells: normalized features, color, products of colors, and 1.

    features (1, D, h, w) and image uint8 (1, H, W, 3) are those of the encoder.
    """
    depth, height, width = features.shape[1:]
    cells = np.asarray(features[0], np.float32).reshape(depth, -1).T
    color = cv2.resize(cv2.cvtColor(image[0], cv2.COLOR_RGB2LAB), (width, height), interpolation=cv2.INTER_AREA)
    colors = color.reshape(-1, 3).astype(np.float32)
    cells, colors = (cells - cells.mean(0)) / (cells.std(0) + 1e-3), (colors - colors.mean(0)) / (colors.std(0) + 2)
    products = [0.5 * colors[:, i] * colors[:, j] for i in range(3) for j in range(i, 3)]
    return np.column_stack([cells, colors, *products, np.ones(len(cells))]).astype(np.float32)


def hint_maps(
    descriptors: _Map,
    present: _Map,
    held: NDArray[np.bool_],
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    boxes: NDArray[np.floating],
    *,
    newest: bool,
) -> _Map:
    """Return the hints float32 (HINTS, h, w) for the logits `present` (h, w) and prompts in cells.

    newest: the last prompt is the last of `points`, which holds for the cells `held`. The appearance is the answer of a linear
    classifier of the cells that is fitted to the present mask and to the clicks.
    """
    height, width = present.shape
    maps = np.zeros((HINTS, height, width), np.float32)
    wanted = np.tanh(present / 2).ravel()
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    if not np.any(present) and len(boxes):
        inside = [np.outer((y >= y0) & (y <= y1), (x >= x0) & (x <= x1)) for x0, y0, x1, y1 in boxes]
        wanted = np.where(np.any(inside, axis=0).ravel(), 0.5, -1.0)
    weights = np.abs(wanted)
    for one in (wanted > 0, wanted < 0):
        weights[one] /= weights[one].sum() + 1
    clicked = np.zeros(height * width, bool)
    for (column, row), label in zip(points, labels, strict=True):
        near = np.outer(np.abs(y - row) < 1, np.abs(x - column) < 1).ravel()
        wanted[near], clicked = 1.0 if label else -1.0, clicked | near
    weights[clicked] = _CLICKED / max(int(np.count_nonzero(clicked)), 1)
    if newest:
        sign = np.float32(1 if labels[-1] else -1)
        across, down = (x - points[-1][0]) ** 2, (y - points[-1][1]) ** 2
        maps[0] = sign * np.exp(-0.5 * (down[:, None] + across) / _SURROUNDINGS**2)
        maps[1] = sign * held
        holds = held.ravel()
        if holds.any():
            wanted[holds] = sign
            weights[holds] = np.maximum(weights[holds], _HELD / np.count_nonzero(holds))
        near = np.exp(-0.5 * (down[:, None] + across) / _NEIGHBORHOOD**2).ravel()
        maps[3] = _response(descriptors, wanted, weights * near).reshape(height, width)
    if weights.any():
        maps[2] = _response(descriptors, wanted, weights).reshape(height, width)
    return np.clip(maps, -2, 2)


def _response(descriptors: _Map, wanted: NDArray[Any], weights: NDArray[Any]) -> _Map:
    """Return the values (N,) of the ridge regression of `wanted` with some weights."""
    share = (weights / max(float(weights.sum()), _LEAST)).astype(np.float32)
    weighted, targets = descriptors * share[:, None], np.column_stack([descriptors, wanted.astype(np.float32)])
    count, channels = descriptors.shape
    parts = [slice(first, first + _ROWS) for first in range(0, count, _ROWS)]
    products = sum((weighted[part].T @ targets[part] for part in parts), np.zeros((channels, channels + 1), np.float32))
    matrix = products[:, :-1] + _RIDGE * np.eye(channels, dtype=np.float32)
    solved = np.linalg.solve(matrix, products[:, -1])
    return np.concatenate([descriptors[part] @ solved for part in parts]).astype(np.float32)
