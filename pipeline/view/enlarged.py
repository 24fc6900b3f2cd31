"""The view of an enlarged part of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cliprl.pipeline.core.viewport import Box, Viewport, map_points, network_to_frame


def enlarged_view(view: Viewport, part: Box, grid: Sequence[int]) -> Viewport:
    """The view of a part of another one, in cells of its grid (height, width), that fills the network input."""
    scale = np.array([view.network_width / grid[1], view.network_height / grid[0]])
    corners = np.array([part[:2], (part[0] + part[2], part[1] + part[3])]) * scale
    # Chroma is cut at even pixels.
    (left, top), (right, bottom) = (2 * np.round(map_points(network_to_frame(view), corners) / 2)).astype(int).tolist()
    right, bottom = min(right, view.frame_width), min(bottom, view.frame_height)
    crop = (left, top, max(right - left, 1), max(bottom - top, 1))
    return replace(view, crop=crop, placed=(0, 0, view.network_width, view.network_height))


def part_around(view: Viewport, box: Box, grid: Sequence[int], factor: int) -> Box | None:
    """Return the part of a grid (height, width) around a box, in cells: a `factor`-th of its rows and of its columns.

    It lies inside the image of the view; None if that is smaller.
    """
    starts = []
    for axis, length, network in ((0, grid[1], view.network_width), (1, grid[0], view.network_height)):
        first, last = (view.placed[axis] + n * view.placed[axis + 2] for n in (0, 1))
        first, last, part = -(-first * length // network), last * length // network, length // factor
        if last - first < part:
            return None
        starts.append(min(max(box[axis] + (box[axis + 2] - part) // 2, first), last - part))
    return starts[0], starts[1], grid[1] // factor, grid[0] // factor
