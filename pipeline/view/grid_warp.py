"""The cells of a grid in the frame, and the move of their values from one field of view to another."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport, map_points, network_to_frame


def grid_map(old: Viewport, new: Viewport, grid: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and shift along x and y, float64 (2,) each, from cells of a grid (rows, columns) to those of another view.

    A cell at `c` in the grid over `old` lies at `scale * c + shift` in the grid over `new`. Cell 0 is half a cell from the edge
    of the network input, where the coordinates of the view start.
    """
    x, y = axis_map(old, new, 0, grid[1]), axis_map(old, new, 1, grid[0])
    return np.array([x[0], y[0]]), np.array([x[1], y[1]])


def axis_map(old: Viewport, new: Viewport, axis: int, cells: int) -> tuple[float, float]:
    """Return scale and shift of `grid_map` along one axis (0: x, 1: y) with that number of cells."""
    (start, length), (place, room) = old.crop[axis::2], old.placed[axis::2]
    to_frame = length / room
    from_frame = new.placed[axis::2][1] / new.crop[axis::2][1]
    scale = from_frame * to_frame
    shift = from_frame * (start - place * to_frame) + (new.placed[axis] - new.crop[axis] * from_frame)
    stride = (old.network_height if axis else old.network_width) / cells
    return scale, shift / stride + (scale - 1) / 2


def warp_grid(logits: NDArray[np.float32], old: Viewport, new: Viewport) -> NDArray[np.float32]:
    """Move a grid of logits (1, K, h, w) from one view to another; cells without a value are filled from the edge."""
    height, width = logits.shape[2:]
    scale, shift = grid_map(old, new, (height, width))
    matrix = np.column_stack([np.diag(scale), shift])
    moved = [
        cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in logits[0]
    ]
    return np.stack(moved)[None].astype(np.float32, copy=False)


def cell_centers(view: Viewport, height: int, width: int) -> NDArray[np.float64]:
    """Return the centers of the cells of a grid over the network input as (x, y) in the frame: (height, width, 2)."""
    x = (np.arange(width) + 0.5) * view.network_width / width
    y = (np.arange(height) + 0.5) * view.network_height / height
    return map_points(network_to_frame(view), np.stack(np.meshgrid(x, y), axis=-1))
