"""Maps of points and boxes on a grid: the input by which a convolutional head sees a prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Standard deviations, in cells, of the narrow and the wide Gaussian of a point.
POINT_SIGMAS = (1.0, 5.0)
# Channels of the maps: two Gaussians of positive points, two of negative ones, and the inside of the boxes.
CHANNELS = 2 * len(POINT_SIGMAS) + 1


def prompt_maps(
    points: NDArray[np.floating], labels: NDArray[np.integer], boxes: NDArray[np.floating], grid: tuple[int, int]
) -> NDArray[np.float32]:
    """Return the maps float32 (CHANNELS, h, w) of points (N, 2), labels (N,) of 1 and 0, and boxes (M, 4), on a grid (h, w).

    Positions are x, y in cells; the center of the first cell is at (0.5, 0.5).
    """
    height, width = grid
    maps = np.zeros((CHANNELS, height, width), np.float32)
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    for (left, top), label in zip(points, labels, strict=True):
        for number, sigma in enumerate(POINT_SIGMAS):
            across, down = (np.exp(-0.5 * ((at - to) / sigma) ** 2) for at, to in ((x, left), (y, top)))
            channel = maps[number if label else number + len(POINT_SIGMAS)]
            np.maximum(channel, np.outer(down, across), out=channel)
    for x0, y0, x1, y1 in boxes:
        inside = np.outer((y >= y0) & (y <= y1), (x >= x0) & (x <= x1))
        maps[-1][inside] = 1.0
    return maps
