"""Writes every image of a stream in the color and the orientation of its first."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Protocol

import av

from cliprl.pipeline.core.color import UNSPECIFIED, ColorSpace
from cliprl.pipeline.core.frame import Frame, Plane, allocate_planes
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo
from cliprl.pipeline.core.nv12 import recolor, same_values, turn_planes
from cliprl.pipeline.sources.decoding.nv12_writer import PlaneWriter, image_color, is_rgb
from cliprl.pipeline.sources.display_matrix import Orientation, OrientationReader
from cliprl.pipeline.sources.probe import Crop


class Writer(Protocol):
    """Writes a decoded frame into planes. `on_host`: these hold it afterwards, so that they can be worked on."""

    on_host: bool

    def write(self, image: av.VideoFrame, luma: Plane, chroma: Plane, color: ColorSpace) -> None:
        """Write `image` into planes of its size."""


class Conformer:
    """Writes decoded frames as frames of the stream `info`, which describes its first frame.

    A frame is mirrored and turned until the stream's rotation makes it upright, and converted to the stream's matrix and
    range. `persistent`: a frame without an orientation has that of the one before, as in a video whose key frames have
    it; otherwise it is upright. A writer that is not `on_host` leaves color and orientation as they are. What can't be made
    to agree (size, sample aspect, primaries, transfer function) is named in `notes`, once each. `crop`: the part that is kept of
    frames of its size.
    """

    def __init__(
        self, info: StreamInfo, writer: Writer | None = None, *, persistent: bool, crop: Crop | None = None
    ) -> None:
        self.notes: dict[str, str] = {}
        self._info = info
        self._writer = writer or PlaneWriter()
        self._orientations, self._is_first = OrientationReader(), True
        self._attached: Orientation | None = None
        self._persistent, self._crop, self._last = persistent, crop, Orientation(False, info.rotation)
        self._stored = allocate_planes(0, 0)

    def frame(
        self, image: av.VideoFrame, context: Any, allocate: PlaneAllocator, place: str, aspect: Fraction | None
    ) -> Frame:
        """Convert a decoded frame into a frame without time. `place` names it in notes; `aspect` is its sample aspect."""
        own, found = image_color(image, context), self._orientation(image)
        color, turns = self._info.color, (found.rotation - self._info.rotation) // 90 % 4
        if not self._writer.on_host:
            color, turns = own, 0
        shown = self._crop_of(image) or image
        height, width = (shown.width, shown.height) if turns % 2 else (shown.height, shown.width)
        planes = allocate(height, width)
        if self._writer.on_host:
            self._write(image, planes, own, found.mirrored, turns)
        else:
            self._writer.write(image, *planes, own)
        aspect = 1 / aspect if aspect and turns % 2 else aspect
        self._tell(own, found, (height, width), aspect, place)
        return Frame(*planes, 0, self._info.time_base, 0, color, rotation=self._info.rotation, sample_aspect=aspect)

    def _crop_of(self, image: av.VideoFrame) -> Crop | None:
        return self._crop if self._crop and self._crop.size == (image.width, image.height) else None

    def _orientation(self, image: av.VideoFrame) -> Orientation:
        if self._is_first or image.key_frame:
            self._is_first, self._attached = False, self._orientations.read(image)
        found = self._attached
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
        target, crop = planes, self._crop_of(image)
        if mirrored or turns or crop:
            if self._stored[0].shape != (image.height, image.width):
                self._stored = allocate_planes(image.height, image.width)
            target = self._stored
        if is_rgb(image):
            own = self._info.color
        self._writer.write(image, *target, own)
        if own != self._info.color:
            recolor(*target, own, self._info.color)
        if target is not planes:
            target = crop.of(*target) if crop else target
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
