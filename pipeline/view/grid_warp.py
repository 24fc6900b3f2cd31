"""Move the values of a grid from one field of view to another."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport, frame_to_network, network_to_frame


def grid_map(old: Viewport, new: Viewport, grid: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and shift along x and y, float64 (2,) each, from cells of a grid (rows, columns) to those of another view.

    A cell at `c` in the grid over `old` lies at `scale * c + shift` in the grid over `new`. Cell 0 is half a cell from the edge
    of the network input, where the coordinates of the view start.
    """
    to_frame, to_network = network_to_frame(old), frame_to_network(new)
    scale = to_network[:, :2].diagonal() * to_frame[:, :2].diagonal()
    shift = to_network[:, :2].diagonal() * to_frame[:, 2] + to_network[:, 2]
    strides = np.array([old.network_width / grid[1], old.network_height / grid[0]])
    return scale, shift / strides + (scale - 1) / 2


def warp_grid(logits: NDArray[np.float32], old: Viewport, new: Viewport) -> NDArray[np.float32]:
    """Move a grid of logits from one view to another; cells without a value are filled from the edge."""
    height, width = logits.shape[2:]
    scale, shift = grid_map(old, new, (height, width))
    matrix = np.column_stack([np.diag(scale), shift])
    moved = [
        cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in logits[0]
    ]
    return np.stack(moved)[None].astype(np.float32, copy=False)
