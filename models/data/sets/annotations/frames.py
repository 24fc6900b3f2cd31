"""The frames of a label file, and their images."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as PillowImage

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.image_mask_dataset import natural_order
from cliprl.models.data.io import files_below
from cliprl.pipeline.sinks.json_text import xml_text

# Namings of a video's frames, of which a file may use one.
_NAMINGS = {
    "frame_000012": re.compile(r"frame_(\d+)"),
    "000012_36000": re.compile(r"(\d{6,})_-?\d+"),
    "000012": re.compile(r"(\d+)"),
    "CLIP_000012": re.compile(r".+_(\d{6})"),
}
# What stands behind the name of a label file.
_SUFFIXES = re.compile(r"(\.coco|\.cvat|\.labelstudio)?\.[a-z]+$", re.IGNORECASE)
# Names of exports of CVAT, Roboflow and Label Studio, the same for every task.
_COMMON_NAMES = re.compile(r"_?annotations|instances_.+|result", re.IGNORECASE)
# What Label Studio puts before the name of an uploaded file. A date of eight digits at the front of a name looks the same.
_UPLOAD = re.compile(r"(.*/)?[0-9a-f]{8}-(.+)", re.DOTALL)
_QUARTER_TURNS = range(5, 9)  # orientations of EXIF that exchange width and height
DrawMask = Callable[[int, int], NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Annotation:
    """A class and the function that draws its mask bool (height, width)."""

    label: str
    draw: DrawMask


@dataclass(slots=True)
class AnnotatedFrame:
    """A frame of a label file: its name there, its size (height, width) if the file gives it, and its annotations in order.

    `is_labelled`: a frame without annotations shows no class. `item` names the frame in error messages.
    """

    name: str
    item: str
    sequence: str
    size: tuple[int, int] | None = None
    is_labelled: bool = False
    annotations: list[Annotation] = field(default_factory=list)
    path: Path = Path()


def frame_number(name: str) -> tuple[str, int] | None:
    """Return how a frame of a video is named, and its number; None for another name."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    return next((((style, int(m[1]))) for style, pattern in _NAMINGS.items() if (m := pattern.fullmatch(stem))), None)


def before_upload(name: str) -> str:
    """Return the name of a file before it was uploaded to Label Studio; the name itself if it has no such prefix."""
    found = _UPLOAD.fullmatch(name.replace("\\", "/"))
    return f"{found[1] or ''}{found[2]}" if found else name


def sequence_of(path: Path) -> str:
    """Return the sequence of a label file's frames: its name, with that of its folder if tools give all their files this name."""
    stem = _SUFFIXES.sub("", path.name)
    folder = path.resolve().parent
    if folder.name == "annotations":
        folder = folder.parent
    return f"{folder.name} {stem}" if _COMMON_NAMES.fullmatch(stem) else stem


def find_images(source: Path, frames: Sequence[AnnotatedFrame], images: str) -> Any:
    """Set the path of each frame's image, and its name before it was uploaded if the image has that name.

    Returns what must be kept while the images are read. Raises UsageError for wrong `images`, CliprlError for a frame without
    an image, and for two frames with the same one.
    """
    beside = source.parent / f"{_SUFFIXES.sub('', source.name)}.frames"
    given = source.parent / images if images else None
    temporary = None
    if given is not None and given.is_file():
        temporary = tempfile.TemporaryDirectory(prefix="cliprl-frames-")
        _decode(given, frames, Path(temporary.name))
        given = Path(temporary.name)
    if given is not None and not given.is_dir():
        raise UsageError(f"{source}: images is '{given}', which is neither a folder nor a video")
    # Exports in the layout of COCO hold annotations/ and images/.
    apart = [source.parent.parent / "images"] if source.parent.name == "annotations" else []
    places = [given] if given else [beside, source.parent / "images", *apart, source.parent]
    places = [folder for folder in places if folder.is_dir()]
    # The last place may hold far more than the frames: it is read only if one is missing in the others.
    index = cache(lambda folder: _ImageIndex(folder, is_own=folder == beside))
    owners: dict[Path, AnnotatedFrame] = {}
    for frame in frames:
        found = next((each for folder in places if (each := index(folder).find(source, frame))), None)
        if found is None:
            folders = ", ".join(f"'{folder}'" for folder in places)
            raise CliprlError(
                f"{source}: the image '{frame.name}' of {frame.item} is missing in {folders}: give the folder of the frames, or "
                "their video, with images="
            )
        frame.path, frame.name = found
        if (other := owners.setdefault(frame.path, frame)) is not frame:
            raise CliprlError(
                f"{source}: {other.item} and {frame.item} have one image, {frame.path}: give the folder of the frames with "
                "images=, or remove one of them"
            )
    return temporary


class _ImageIndex:
    """The images of a folder and its sub-folders, by the ends of their paths."""

    def __init__(self, folder: Path, is_own: bool) -> None:
        """Read the folder. In the label file's own (`is_own`), frames are also found by their number, under another naming."""
        self._by_end, self._by_number = dict[str, list[Path]](), dict[str, list[Path]]()
        for path in sorted(files_below(folder, whole=False), key=natural_order):
            parts = path.relative_to(folder).parts
            # Frames of another label file are found by their folder and name only.
            foreign = any(PurePosixPath(part).suffix in (".frames", ".dataset", ".yolo") for part in parts[:-1])
            ends = ["/".join(parts[start:]) for start in range(len(parts) - foreign)]
            for end in ends if foreign else [*ends, path.stem]:
                self._by_end.setdefault(_composed(end), []).append(path)
            if is_own and (naming := frame_number(path.name)):
                self._by_number.setdefault(str(naming[1]), []).append(path)

    def find(self, source: Path, frame: AnnotatedFrame) -> tuple[Path, str] | None:
        """Return the image of a frame and the frame's name, before an upload if the image has that name; None without one.

        Raises CliprlError if several could be meant.
        """
        # The whole name first: what looks like the prefix of an upload may be a date.
        for name in dict.fromkeys((frame.name, before_upload(frame.name))):
            found = self._named(name)
            if len(found) > 1:
                places = ", ".join(f"'{path}'" for path in found[:3])
                raise CliprlError(
                    f"{source}: the image '{name}' of {frame.item} may be any of {places}: give the folder of the frames with "
                    "images="
                )
            if found:
                return found[0], name
        return None

    def _named(self, name: str) -> list[Path]:
        """Return the images that a frame of this name may be."""
        pure = PurePosixPath(name.replace("\\", "/"))
        # First as it is: a backslash may be part of a name.
        for end in (name, *("/".join(pure.parts[start:]) for start in range(len(pure.parts))), pure.stem):
            if found := self._by_end.get(_composed(end)):
                return found
        naming = frame_number(name)
        return self._by_number.get(str(naming[1]), []) if naming else []


def _composed(name: str) -> str:
    """Return a name as label files have it.

    This program writes bytes that are not UTF-8, and control characters, as text; macOS keeps accents apart from their letters
    in the names of files, and tools do not.
    """
    return normalize("NFC", xml_text(name))


def _decode(video: Path, frames: Sequence[AnnotatedFrame], folder: Path) -> None:
    """Write those frames of a video that are annotated, under their names, as PNG."""
    from cliprl.pipeline.sinks.frame_image import FrameConverter
    from cliprl.pipeline.sources import open_source

    names = [before_upload(frame.name) for frame in frames]
    wanted = {naming[1]: PurePosixPath(name).stem for name in names if (naming := frame_number(name))}
    converter = FrameConverter()
    with open_source(str(video)) as source:
        for frame in source:
            if frame.index in wanted:
                (folder / f"{wanted.pop(frame.index)}.png").write_bytes(converter.png(frame))
            if not wanted:
                break


def check_image(source: Path, frame: AnnotatedFrame) -> None:
    """Raise CliprlError if the file of a frame can't be read or is of another size than the label file says."""
    size = image_size(frame.path)
    if size is None:
        raise CliprlError(f"{frame.path} can't be read as an image: copy it again")
    if frame.size is not None and frame.size != size:
        raise CliprlError(
            f"{source}: the labels of {frame.item} are {frame.size[1]}x{frame.size[0]} and its image {frame.path} is "
            f"{size[1]}x{size[0]}: they must be of one size; give the frames that were labelled"
        )


@contextmanager
def _images_of_any_size() -> Iterator[None]:
    """Let Pillow open images whose pixels would take much memory: only their size is read."""
    before, PillowImage.MAX_IMAGE_PIXELS = PillowImage.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        PillowImage.MAX_IMAGE_PIXELS = before


def image_size(path: Path) -> tuple[int, int] | None:
    """Return (height, width) of an image file as a viewer displays it, as labelling tools do; None if it can't be read."""
    try:
        with _images_of_any_size(), PillowImage.open(path) as image:
            # Asked for tags that it has not read yet, Pillow decodes the whole image.
            tagged = "exif" in image.info or image.format == "TIFF"
            turned = tagged and image.getexif().get(ExifTags.Base.Orientation, 1) in _QUARTER_TURNS
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, ValueError):
        return None
