"""The display matrix of a frame: how it is mirrored and turned for display."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import av
from av.sidedata.sidedata import Type

# Types of side data that libav may attach and PyAV does not know, so that it gives none of a frame's.
_LAST: int = max(kind.value for kind in Type)  # type: ignore[type-var, assignment]
_UNKNOWN = range(_LAST + 1, _LAST + 17)
_MATRIX = struct.Struct("=9i")
# The tangent of an angle that counts as a right one: half a degree.
_RIGHT = 0.009


class Orientation(NamedTuple):
    """The frame is mirrored left to right where `mirrored`, then turned by `rotation` degrees counter-clockwise (0 to 270)."""

    mirrored: bool = False
    rotation: int = 0


def sideways_note(rotation: int) -> str:
    """Return a note on frames that are stored on their side; "" for others. They are segmented as they are stored."""
    if rotation % 180 == 0:
        return ""
    return (
        "the frames are stored on their side, and are segmented so: masks can be worse than of upright frames; "
        "a copy that ffmpeg -i INPUT COPY makes is upright"
    )


class OrientationReader:
    """Reads the display matrix that libav attaches to a frame, from a container or from its EXIF, in one stream's order.

    A frame whose side data PyAV has read is part of a reference cycle, and its planes (1.4 MB at 720p) stay until the garbage
    collector runs: read key frames only.
    """

    def __init__(self) -> None:
        # Whether an angle has been replaced by the nearest right one.
        self.approximate = False
        self._graphs: dict[tuple[int, int, str], Any] = {}

    def read(self, image: av.VideoFrame) -> Orientation | None:
        """Return the orientation of a decoded frame. None if it has none; a singular matrix counts as upright."""
        for data in self._side_data(image):
            if data.type == Type.DISPLAYMATRIX:
                matrix = _MATRIX.unpack(bytes(data)[: _MATRIX.size])
                self.approximate |= min(abs(matrix[0]), abs(matrix[1])) > _RIGHT * max(abs(matrix[0]), abs(matrix[1]))
                return from_matrix(matrix)
        return None

    def _side_data(self, image: av.VideoFrame) -> Any:
        try:
            return image.side_data
        except ValueError:  # of a type that PyAV does not know
            return self._known(image).side_data

    def _known(self, image: av.VideoFrame) -> av.VideoFrame:
        """The frame without the side data that PyAV does not know."""
        key = (image.width, image.height, image.format.name)
        if key not in self._graphs:
            self._graphs = {key: _deleting(*key)}
        graph = self._graphs[key]
        graph.push(image)
        known: av.VideoFrame = graph.pull()
        return known


def _deleting(width: int, height: int, pixels: str) -> Any:
    """A filter graph that deletes side data of the types unknown to PyAV."""
    graph = av.filter.Graph()
    layout = av.VideoFormat(pixels, width, height)
    nodes: list[Any] = [graph.add_buffer(width=width, height=height, format=layout, time_base=Fraction(1, 1000))]
    nodes += [graph.add("sidedata", f"mode=delete:type={kind}") for kind in _UNKNOWN]
    nodes.append(graph.add("buffersink"))
    for before, after in pairwise(nodes):
        before.link_to(after)
    graph.configure()
    return graph


def from_matrix(matrix: tuple[int, ...]) -> Orientation:
    """Read libav's display matrix: nine numbers, row by row, that map (x, y, 1) from the left. Angles become right ones."""
    a, b, _, c, d = matrix[:5]
    determinant = a * d - b * c
    if determinant == 0:
        return Orientation()
    mirrored = determinant < 0
    if mirrored:  # mirrored left to right first: what is left is a rotation
        a, b = -a, -b
    # The x axis goes to (a, b), where y points down: clockwise from right to down.
    quarter = (0 if a > 0 else 2) if abs(a) >= abs(b) else (3 if b > 0 else 1)
    return Orientation(mirrored, 90 * quarter)
