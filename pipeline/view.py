"""Where the endoscope's picture lies in a frame, and the map between frame and network coordinates."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class View:
    """The part of a frame that the network sees, and where it lies in the network's picture.

    `crop` (left, top, width, height) in luma pixels of the frame is scaled onto `placed` (left, top, width, height) in
    pixels of the network's picture (network_width x network_height); the rest of that picture is padding. `circle`
    (x, y, radius) in frame pixels is the endoscope's bright disc, None where the picture fills its crop. Pixel centres
    lie at half-integers in both systems.
    """

    frame_height: int
    frame_width: int
    network_height: int
    network_width: int
    crop: tuple[int, int, int, int]
    placed: tuple[int, int, int, int]
    circle: tuple[float, float, float] | None = None
