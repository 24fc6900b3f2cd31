"""Writes every image of a stream in the color and the orientation of its first."""

from __future__ import annotations

import struct
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import av
from av.sidedata.sidedata import Type

from cliprl.pipeline.core.color import UNSPECIFIED, ColorSpace
from cliprl.pipeline.core.frame import Frame, Plane, allocate_planes
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo
from cliprl.pipeline.core.nv12 import recolor, same_values, turn_planes
from cliprl.pipeline.sources.decoding.nv12_writer import PlaneWriter, image_color, is_rgb

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


class OrientationReader:
    """Reads the display matrix that libav attaches to a frame, from a container or from its EXIF, in one stream's order.

    Frames that are no key frames have the orientation of the one before: a frame whose side data PyAV has read is part of a
    reference cycle, and its planes (1.4 MB at 720p) stay until the garbage collector runs.
    """

    def __init__(self) -> None:
        self._is_first = True
        self._last: Orientation | None = None
        # Whether an angle has been replaced by the nearest right one.
        self.approximate = False
        self._graphs: dict[tuple[int, int, str], Any] = {}

    def read(self, image: av.VideoFrame) -> Orientation | None:
        """Return the orientation of a decoded frame. None if it has none; a singular matrix counts as upright."""
        if self._is_first or image.key_frame:
            self._is_first, self._last = False, self._attached(image)
        return self._last

    def _attached(self, image: av.VideoFrame) -> Orientation | None:
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


class Writer(Protocol):
    """Writes a decoded frame into planes. `on_host`: these hold it afterwards, so that they can be worked on."""

    on_host: bool

    def write(self, image: av.VideoFrame, luma: Plane, chroma: Plane, color: ColorSpace) -> None:
        """Write `image` into planes of its size."""
        ...


class Conformer:
    """Writes decoded frames as frames of the stream `info`, which describes its first frame.

    A frame is mirrored and turned until the stream's rotation makes it upright, and converted to the stream's matrix and
    range. `persistent`: a frame without an orientation has that of the one before, as in a video whose key frames have
    it; otherwise it is upright. A writer that is not `on_host` leaves color and orientation as they are. What can't be made
    to agree (size, sample aspect, primaries, transfer function) is named in `notes`, once each.
    """

    def __init__(self, info: StreamInfo, writer: Writer | None = None, *, persistent: bool) -> None:
        self.notes: dict[str, str] = {}
        self._info = info
        self._writer = writer or PlaneWriter()
        self._orientations = OrientationReader()
        self._persistent, self._last = persistent, Orientation(False, info.rotation)
        self._stored = allocate_planes(0, 0)

    def frame(
        self, image: av.VideoFrame, context: Any, allocate: PlaneAllocator, place: str, aspect: Fraction | None
    ) -> Frame:
        """Convert a decoded frame into a frame without time. `place` names it in notes; `aspect` is its sample aspect."""
        own, found = image_color(image, context), self._orientation(image)
        color, turns = self._info.color, (found.rotation - self._info.rotation) // 90 % 4
        if not self._writer.on_host:
            color, turns = own, 0
        height, width = (image.width, image.height) if turns % 2 else (image.height, image.width)
        planes = allocate(height, width)
        if self._writer.on_host:
            self._write(image, planes, own, found.mirrored, turns)
        else:
            self._writer.write(image, *planes, own)
        if aspect and turns % 2:
            aspect = 1 / aspect
        self._tell(own, found, (height, width), aspect, place)
        frame = Frame(*planes, 0, self._info.time_base, 0, color, rotation=self._info.rotation)
        frame.sample_aspect = aspect
        return frame

    def _orientation(self, image: av.VideoFrame) -> Orientation:
        found = self._orientations.read(image)
        if self._orientations.approximate:
            self.notes.setdefault(
                "angle", "the file tilts the frames: they are turned by the nearest multiple of 90 degrees"
            )
        if found is None:
            return self._last if self._persistent else Orientation()
        self._last = found
        return found

    def _write(
        self, image: av.VideoFrame, planes: tuple[Plane, Plane], own: ColorSpace, mirrored: bool, turns: int
    ) -> None:
        target = planes
        if mirrored or turns:
            if self._stored[0].shape != (image.height, image.width):
                self._stored = allocate_planes(image.height, image.width)
            target = self._stored
        if is_rgb(image):
            own = self._info.color
        self._writer.write(image, *target, own)
        if own != self._info.color:
            recolor(*target, own, self._info.color)
        if target is not planes:
            for plane, turned in zip(planes, turn_planes(*target, mirrored=mirrored, turns=turns), strict=True):
                plane[:] = turned

    def _tell(
        self, own: ColorSpace, found: Orientation, size: tuple[int, int], aspect: Fraction | None, place: str
    ) -> None:
        """Note what of a frame differs from the first and stays so."""
        info, (height, width) = self._info, size
        first = info.color
        if size != (info.height, info.width):
            self.notes.setdefault("size", f"the size changes at {place}, to {width}x{height}")
        if (aspect or 1) != (info.sample_aspect or 1):
            change = f"from {_ratio(info.sample_aspect)} to {_ratio(aspect)}"
            self.notes.setdefault("aspect", f"the shape of pixels (sample aspect ratio) changes at {place}, {change}")
        if _differ(own.primaries_tag, first.primaries_tag) or _differ(own.transfer_tag, first.transfer_tag):
            self.notes.setdefault(
                "tags", f"color primaries or transfer function change at {place}: shown with those of the first"
            )
        turned = found != Orientation(False, info.rotation)
        if not self._writer.on_host and (turned or not same_values(own, first)):
            self.notes.setdefault(
                "left", f"color or orientation change at {place}, and stay so: --device cpu converts them"
            )


def _differ(tag: int, other: int) -> bool:
    return tag != other and not {tag, other} & {0, UNSPECIFIED}


def _ratio(aspect: Fraction | None) -> str:
    return f"{aspect.numerator}:{aspect.denominator}" if aspect else "1:1"
