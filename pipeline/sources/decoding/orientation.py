"""How a decoded picture is to be turned and mirrored for display: display matrices of containers, and EXIF."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import av
from av.sidedata.sidedata import Type

# Types of side data that libav may attach and PyAV does not know, so that it gives none of a picture's.
_LAST: int = max(kind.value for kind in Type)  # type: ignore[type-var, assignment]
_UNKNOWN = range(_LAST + 1, _LAST + 17)
_MATRIX = struct.Struct("=9i")


class Orientation(NamedTuple):
    """The picture is mirrored left to right where `mirrored`, then turned by `rotation` degrees counter-clockwise (0 to 270)."""

    mirrored: bool = False
    rotation: int = 0


class OrientationReader:
    """Reads the display matrix that libav attaches to a picture, from a container or from its EXIF."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[int, int, str], Any] = {}

    def read(self, picture: av.VideoFrame) -> Orientation | None:
        """The orientation of a picture as decoded; None where nothing is told. A matrix that shows nothing leaves it upright."""
        for data in self._side_data(picture):
            if data.type == Type.DISPLAYMATRIX:
                return from_matrix(_MATRIX.unpack(bytes(data)[: _MATRIX.size]))
        return None

    def _side_data(self, picture: av.VideoFrame) -> Any:
        try:
            return picture.side_data
        except ValueError:  # of a type that PyAV does not know
            return self._known(picture).side_data

    def _known(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture without the side data that PyAV does not know."""
        key = (picture.width, picture.height, picture.format.name)
        if key not in self._graphs:
            self._graphs = {key: _deleting(*key)}
        graph = self._graphs[key]
        graph.push(picture)
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
