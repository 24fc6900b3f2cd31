"""Numbered or named images as a stream: `frames/*.png`, `frames/%04d.jpg`."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from glob import escape, glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any

import av

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Frame, ImageFile
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.decoding.conform import Conformer
from cliprl.pipeline.sources.decoding.decode import DEFAULT_RATE
from cliprl.pipeline.sources.decoding.nv12_writer import image_color
from cliprl.pipeline.sources.display_matrix import Orientation, OrientationReader, sideways_note
from cliprl.pipeline.sources.images.stills import (
    codec_of,
    images_of_png,
    is_animated_webp,
    is_still,
    is_whole,
    pages_of_tiff,
    without_libav,
)
from cliprl.pipeline.sources.probe import depth_note
from cliprl.pipeline.sources.registry import SourceOptions, register_source

# Bytes of the longest stem: file systems allow names of 255, and ".png" follows. Of a stem that is too long the first are kept.
_LONGEST, _CUT = 255 - len(".png"), 200


def image_files(paths: Sequence[Path]) -> list[ImageFile]:
    """The name and the stem of each file of a list, see `ImageFile`.

    No two stems are the same, upper and lower case apart, and each is short enough for the name of a mask.
    """
    folder = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    names = [Path(os.path.abspath(path)).relative_to(folder).as_posix() for path in paths]
    for stem_of in (_stem, _base, _flat):
        stems = [stem_of(name) for name in names]
        is_short = all(len(os.fsencode(stem)) <= _LONGEST for stem in stems)
        if is_short and len({stem.casefold() for stem in stems}) == len(names):
            break
    else:
        stems = [f"{i:06d}_{os.fsdecode(os.fsencode(_stem(name))[:_CUT])}" for i, name in enumerate(names)]
    return [ImageFile(name, stem) for name, stem in zip(names, stems, strict=True)]


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _flat(name: str) -> str:
    return name.replace("/", "_")


# Square pixels are often stored as two rounded numbers of dots per meter.
_ROUNDING = 0.01
_PRINTF = re.compile(r"%(0?\d*)d")


def is_pattern(name: str) -> bool:
    """Whether `name` is a glob or a printf pattern."""
    return has_magic(name) or bool(_PRINTF.search(name))


def expand(pattern: str) -> list[Path]:
    """The files of a pattern in natural order (2 before 10). Raises UsageError if there is none.

    The rest of a printf pattern is literal: "case [3]/%04d.png" is in a folder of that name.
    """
    numbered = _PRINTF.search(pattern)
    if numbered:
        parts = _PRINTF.split(str(Path(pattern)))[::2]
        wanted = re.compile(rf"(\d{{{int(numbered[1] or 1)},}})".join(map(re.escape, parts)))
        names = [name for name in glob("*".join(map(escape, parts))) if wanted.fullmatch(name)]
    else:
        names = glob(pattern)
    files = sorted((Path(name) for name in names if os.path.isfile(name)), key=_natural)
    folder = os.path.dirname(pattern)
    if not files and os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
        raise UsageError(f"the folder '{folder}' of {pattern} may not be read by this user: change its permissions")
    if not files:
        raise UsageError(
            f"no file matches {pattern}: check the pattern, and quote it so that the shell leaves it alone"
        )
    return files


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _none_of(name: str, paths: Sequence[Path]) -> str:
    if len(paths) > 1 or Path(name) != paths[0]:
        return f"no file of {name} is an image that can be read: name JPEG, PNG, TIFF, BMP or WebP files"
    with suppress(OSError):
        if is_animated_webp(paths[0].read_bytes()[:32]):
            return f"{name} is an animated WebP, which can't be read here: convert it to GIF or MP4"
    return f"{name} is no image that can be read here: it is damaged, or of a rare kind; save it as PNG or JPEG"


class ImageSource(FrameSource):
    """The images of a list of files (JPEG, PNG, TIFF, BMP, WebP), `rate` a second.

    An image that can't be read is left out, counted in `damaged` and named in the notes; its time stays empty.
    """

    def __init__(self, name: str, paths: Sequence[Path], rate: Fraction = DEFAULT_RATE) -> None:
        self._paths = paths
        self._files = image_files(paths)
        self._next = self._index = 0
        self._decoders: dict[str, Any] = {}
        self._first: tuple[int, av.VideoFrame] | None = None
        super().__init__(StreamInfo(name, 0, 0, 1 / rate))
        self._first = self._advance()
        if self._first is None:
            raise CliprlError(_none_of(name, paths))
        image = self._first[1]
        rotation = (OrientationReader().read(image) or Orientation()).rotation
        for remark in filter(None, (depth_note(str(paths[self._first[0]]), image), sideways_note(rotation))):
            self.note(remark)
        self.info = StreamInfo(
            name,
            image.height,
            image.width,
            1 / rate,
            rate,
            frames=len(paths),
            seconds=float(len(paths) / rate),
            color=image_color(image, self._context),
            rotation=rotation,
            sample_aspect=self._aspect(),
            notes=self.info.notes,
        )
        self._conformer = Conformer(self.info, persistent=False)

    def _advance(self) -> tuple[int, av.VideoFrame] | None:
        """The next readable image, and its place in the list."""
        while self._next < len(self._paths):
            place, path = self._next, self._paths[self._next]
            self._next += 1
            image = self._open(path)
            if image is not None:
                return place, image
            self.damaged += 1
            self.note(f"{path} is no image that can be read (JPEG, PNG, TIFF, BMP or WebP), and is left out")
        return None

    def _open(self, path: Path) -> av.VideoFrame | None:
        try:
            data = path.read_bytes()
        except OSError:
            return None
        codec = codec_of(data)
        if codec is None or is_animated_webp(data):
            return None
        self._context = self._decoders.setdefault(codec, av.CodecContext.create(codec, "r"))
        self._whole = is_whole(data)
        if codec == "tiff" and (pages := pages_of_tiff(data)) > 1:
            self.note(f"{path} has {pages} pages or sizes, of which the first is read: save each as a file to read all")
        if codec == "png" and (images := images_of_png(data)) > 1:
            self.note(
                f"{path} is an animation of {images} images, of which the first is read: give it alone to read all"
            )
        self._context.sample_aspect_ratio = Fraction(0)  # otherwise an image without one gets that of the image before
        return without_libav(data) or self._decode(data)

    def _decode(self, data: bytes) -> av.VideoFrame | None:
        packet = av.Packet(data)
        packet.is_keyframe = True  # else the PNG decoder adds the image to the one before
        try:
            found = self._context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            return None
        return found[0] if found else None

    def _aspect(self) -> Fraction | None:
        """The sample aspect ratio of the image just opened; None for square pixels."""
        aspect: Fraction | None = self._context.sample_aspect_ratio
        return aspect if aspect and abs(aspect - 1) > _ROUNDING else None

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        found, self._first = self._first or self._advance(), None
        if found is None:
            return None
        place, image = found
        damaged = image.is_corrupt or not self._whole
        frame = self._conformer.frame(image, self._context, allocate, str(self._paths[place]), self._aspect())
        frame.pts, frame.duration, frame.index = place, 1, self._index
        for text in self._conformer.notes.values():
            self.note(text)
        frame.damaged, frame.file = damaged, self._files[place]
        self.damaged += damaged
        self._index += 1
        frame.mark("captured")
        return frame

    def close(self) -> None:
        """Release the decoders."""
        super().close()
        self._first = None
        self._decoders.clear()


def _is_list(name: str) -> bool:
    return is_pattern(name) and not os.path.exists(name)


@register_source(shown="'frames/*.png'", matches=_is_list, help="images", takes_rate=True, work="reading images")
def open_images(name: str, options: SourceOptions) -> ImageSource:
    """Open a list of images. Raises UsageError if no file matches the pattern."""
    return ImageSource(name, expand(name), options.rate or DEFAULT_RATE)


def _is_still_file(name: str) -> bool:
    return os.path.isfile(name) and is_still(Path(name))  # reading a pipe would take its data


@register_source(shown="image.tif", matches=_is_still_file, help="an image", work="reading images")
def open_still(name: str, options: SourceOptions) -> ImageSource:
    """Open a TIFF or WebP file as a stream of one frame."""
    return ImageSource(name, [Path(name)])
