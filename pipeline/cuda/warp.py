"""How the network's grid of one view lies to that of another: where a refined mask is to be found in the next frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport, frame_to_network, network_to_frame


def warp_of(old: Viewport, new: Viewport, grid: tuple[int, int]) -> NDArray[np.float32]:
    """Scale and shift along x, then along y, float32 (4,): old cell = scale * new cell + shift, for a grid (rows, columns).

    The identity, exactly, where both views see the same part of the frame.
    """
    if (old.crop, old.placed) == (new.crop, new.placed):
        return np.array([1, 0, 1, 0], np.float32)
    to_frame, to_network = network_to_frame(new), frame_to_network(old)
    scale = to_network[:, :2].diagonal() * to_frame[:, :2].diagonal()
    shift = to_network[:, :2].diagonal() * to_frame[:, 2] + to_network[:, 2]
    strides = np.array([new.network_width / grid[1], new.network_height / grid[0]])
    # Cell centres lie half a cell from the picture's corner, where the maps have their origin.
    return np.stack([scale, shift / strides + (scale - 1) / 2], axis=1).ravel().astype(np.float32)
