"""The field of view in a frame, and the maps between the coordinates of frame, network input and grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Circle = tuple[float, float, float]
Box = tuple[int, int, int, int]

# The image is placed on multiples of this many network pixels, so that the grid of any stride up to 8 has whole cells of it.
ALIGNMENT = 8
# To fill the network input, one axis may be stretched against the other by this factor at most.
MAX_STRETCH = 1.1


@dataclass(frozen=True, slots=True)
class Viewport:
    """The part of a frame that becomes the network input, and its place there.

    `crop` (left, top, width, height) in luma pixels of the frame is scaled onto `placed` (left, top, width, height) in
    pixels of the network input (network_width x network_height); the rest of it is padding. `circle`
    (x, y, radius) in frame pixels is the endoscope's bright disc, None where the image fills its crop. Pixel centers
    lie at half-integers in both systems.
    """

    frame_height: int
    frame_width: int
    network_height: int
    network_width: int
    crop: Box
    placed: Box
    circle: Circle | None = None


def fit_viewport(
    frame_size: tuple[int, int], network_size: tuple[int, int], crop: Box, circle: Circle | None = None
) -> Viewport:
    """Place a crop of the frame in the network input; sizes are (height, width).

    The crop grows to even luma pixels, so that chroma is cut at the same place. It keeps its aspect but for the stretch
    that `MAX_STRETCH` allows and the rounding to `ALIGNMENT`, and lies in the middle.
    """
    (frame_height, frame_width), (network_height, network_width) = frame_size, network_size
    left, top = crop[0] // 2 * 2, crop[1] // 2 * 2
    right = min((crop[0] + crop[2] + 1) // 2 * 2, frame_width)
    bottom = min((crop[1] + crop[3] + 1) // 2 * 2, frame_height)
    scale = min(network_width / (right - left), network_height / (bottom - top))
    x, width = _place((right - left) * scale, network_width)
    y, height = _place((bottom - top) * scale, network_height)
    crop = (left, top, right - left, bottom - top)
    return Viewport(frame_height, frame_width, network_height, network_width, crop, (x, y, width, height), circle)


def _place(length: float, room: int) -> tuple[int, int]:
    """Offset and length along one axis for an image that would be `length` network pixels long."""
    longest = int(min(length * MAX_STRETCH, room)) // ALIGNMENT * ALIGNMENT
    nearest = round(length / ALIGNMENT) * ALIGNMENT
    size = room if length * MAX_STRETCH >= room else min(max(longest, nearest, ALIGNMENT), room)
    return (room - size) // 2 // ALIGNMENT * ALIGNMENT, size


def full_viewport(frame_height: int, frame_width: int, network_height: int, network_width: int) -> Viewport:
    """The view of a frame that the image fills."""
    return fit_viewport((frame_height, frame_width), (network_height, network_width), (0, 0, frame_width, frame_height))


def circle_viewport(frame_size: tuple[int, int], network_size: tuple[int, int], circle: Circle) -> Viewport:
    """The view of an endoscope's disc, which the frame may cut; sizes are (height, width)."""
    x, y, radius = circle
    left, top = max(int(x - radius), 0), max(int(y - radius), 0)
    right = min(math.ceil(x + radius), frame_size[1])
    bottom = min(math.ceil(y + radius), frame_size[0])
    return fit_viewport(frame_size, network_size, (left, top, right - left, bottom - top), circle)


def frame_to_network(view: Viewport) -> NDArray[np.float64]:
    """The 2x3 matrix A with (x, y) in the network input = A @ (x, y, 1) in the frame."""
    scale_x, scale_y = view.placed[2] / view.crop[2], view.placed[3] / view.crop[3]
    x, y = view.placed[0] - view.crop[0] * scale_x, view.placed[1] - view.crop[1] * scale_y
    return np.array([[scale_x, 0.0, x], [0.0, scale_y, y]])


def network_to_frame(view: Viewport) -> NDArray[np.float64]:
    """The 2x3 matrix A with (x, y) in the frame = A @ (x, y, 1) in the network input."""
    scale_x, scale_y = view.crop[2] / view.placed[2], view.crop[3] / view.placed[3]
    x, y = view.crop[0] - view.placed[0] * scale_x, view.crop[1] - view.placed[1] * scale_y
    return np.array([[scale_x, 0.0, x], [0.0, scale_y, y]])


def map_points(matrix: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Map points (..., 2) of (x, y) by a 2x3 matrix."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float64)


@lru_cache(maxsize=8)
def inside_cells(view: Viewport, height: int, width: int) -> NDArray[np.bool_]:
    """Which cells of a grid over the network input lie in the endoscope's image, by their centers: bool (height, width).

    False in the padding and outside the circle. Read-only, and computed once a view.
    """
    x = (np.arange(width) + 0.5) * view.network_width / width
    y = (np.arange(height) + 0.5) * view.network_height / height
    left, top, placed_width, placed_height = view.placed
    mask = ((y >= top) & (y < top + placed_height))[:, None] & ((x >= left) & (x < left + placed_width))[None, :]
    if view.circle is not None:
        to_frame = network_to_frame(view)
        dx = x * to_frame[0, 0] + to_frame[0, 2] - view.circle[0]
        dy = y * to_frame[1, 1] + to_frame[1, 2] - view.circle[1]
        mask &= dx[None, :] ** 2 + dy[:, None] ** 2 <= view.circle[2] ** 2
    mask.setflags(write=False)
    return mask
