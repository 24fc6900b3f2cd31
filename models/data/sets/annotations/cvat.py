"""Labels in CVAT XML 1.1, for video and for images."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from cliprl.engines import CliprlError
from cliprl.models.data.label_forms import form_error
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sets.annotations.dataset import ANNOTATION_OPTIONS, AnnotationDataset, polygon_annotation
from cliprl.models.data.sets.annotations.frames import AnnotatedFrame, Annotation, sequence_of
from cliprl.pipeline.sinks.shapes.run_lengths import from_cvat_runs

_SHAPES = ("polygon", "mask")
_MOST_DIGITS = 19
# The most frames of a video, of ten days at 25 a second: a file may state any number.
_MOST_FRAMES = 25 * 86_400 * 10
_OTHERS = ("box", "polyline", "points", "ellipse", "cuboid", "skeleton")


@register_dataset(
    "cvat",
    "labels in CVAT XML 1.1",
    path_kind="file",
    named_by_path=True,
    options=ANNOTATION_OPTIONS,
    mark="*.cvat.xml",
)
class CvatDataset(AnnotationDataset):
    """A file of CVAT. Frames of a video are named frame_NNNNNN; shapes with a higher z_order cover the others.

    Frames of a video that have no shape are known from its number of frames, or from its first and last one and their step.
    """

    def __init__(self, path: Path, **options: str) -> None:
        try:
            root = ElementTree.parse(path).getroot()
        except (OSError, ElementTree.ParseError) as error:
            raise form_error(path, "XML", f" ({error}): export the task again as CVAT 1.1", "cvat") from error
        if root.tag != "annotations":
            raise form_error(path, "file of CVAT", f": its root is '{root.tag}'; export the task as CVAT 1.1", "cvat")
        self._path, self._order = path, dict[int, list[int]]()
        self._labels = [label.findtext("name") or "" for label in root.iter("label")]
        found: dict[str, AnnotatedFrame] = {}
        size = next(root.iter("original_size"), None)
        self._size = None if size is None else _size(size.findtext("height"), size.findtext("width"), str(path))
        tasks = sorted({track.get("task_id", "") for track in root.iter("track")})
        if len(tasks) > 1:
            raise CliprlError(f"{path} holds tracks of the tasks {', '.join(tasks)}: export each task alone")
        for track in root.iter("track"):
            self._read_track(track, found)
        for image in root.iter("image"):
            self._read_image(image, found)
        if tasks and root.find("image") is None:
            for number in _video_frames(root):
                self._video_frame(number, found)
        for frame in found.values():
            order = self._order[id(frame)]
            frame.annotations = [frame.annotations[i] for i in np.argsort(order, kind="stable").tolist()]
        frames = [found[name] for name in sorted(found)] if root.find("track") is not None else list(found.values())
        super().__init__(path, frames, self._labels, **options)

    def _read_track(self, track: ElementTree.Element, found: dict[str, AnnotatedFrame]) -> None:
        item = f"track {track.get('id')}"
        for shape in track:
            if shape.tag in (*_SHAPES, *_OTHERS) and shape.get("outside") != "1":
                index = shape.get("frame", "")
                number = _integer(index)
                if number is None or number < 0:
                    raise CliprlError(
                        f"{self._path}: {item} has a shape in frame '{index[:80]}': export the task again"
                    )
                frame = self._video_frame(number, found)
                self._add(frame, shape, track.get("label"), f"{self._path}: {item} in frame {index}")

    def _video_frame(self, number: int, found: dict[str, AnnotatedFrame]) -> AnnotatedFrame:
        """Return the frame of a video of this number; a new one has no annotations."""
        name = f"frame_{number:06d}"
        frame = found.setdefault(name, AnnotatedFrame(name, f"frame {number}", sequence_of(self._path), self._size))
        self._order.setdefault(id(frame), [])
        return frame

    def _read_image(self, image: ElementTree.Element, found: dict[str, AnnotatedFrame]) -> None:
        name, item = image.get("name", ""), f"image {image.get('id')}"
        size = _size(image.get("height"), image.get("width"), f"{self._path}: {item}")
        frame = AnnotatedFrame(name, f"{item} '{name}'", sequence_of(self._path), size)
        found[f"{item} {name}"] = frame
        self._order.setdefault(id(frame), [])
        for shape in image:
            if shape.tag in (*_SHAPES, *_OTHERS):
                self._add(frame, shape, shape.get("label"), f"{self._path}: {item} '{name}'")

    def _add(self, frame: AnnotatedFrame, shape: ElementTree.Element, label: str | None, where: str) -> None:
        if shape.tag not in _SHAPES:
            raise CliprlError(f"{where} holds a {shape.tag}: only polygons and masks are read; convert or remove it")
        if label is None or label not in self._labels:
            known = ", ".join(self._labels)
            raise CliprlError(f"{where} is of label '{label}', which the file does not list: one of {known}")
        if frame.size is None:
            raise CliprlError(f"{where} has no size: export the task again, with its original_size")
        make = _mask if shape.tag == "mask" else _polygon
        frame.annotations.append(make(label, shape, frame.size, where))
        self._order.setdefault(id(frame), []).append(_integer(shape.get("z_order", "0")) or 0)


def _video_frames(root: ElementTree.Element) -> range:
    """Return the numbers of the frames of a video task as its file states them; none if it does not, or if they are too many."""

    def stated(name: str) -> int | None:
        return _integer((next(root.iter(name), ElementTree.Element(name)).text or "").strip())

    first, last, size = stated("start_frame") or 0, stated("stop_frame"), stated("size")
    step = re.fullmatch(r"step=([1-9][0-9]{0,8})", (root.findtext(".//frame_filter") or "").replace(" ", ""))
    every = int(step[1]) if step else 1
    end = last + 1 if last is not None else first + every * (size or 0)
    numbers = range(max(first, 0), end, every)
    return numbers if len(numbers) <= _MOST_FRAMES else range(0)


def _integer(text: str) -> int | None:
    """Return the integer that a text is; None for any other, and for one of more digits than 64 bits hold."""
    return int(text) if len(text) < _MOST_DIGITS and text.removeprefix("-").isdecimal() else None


def _polygon(label: str, shape: ElementTree.Element, size: tuple[int, int], where: str) -> Annotation:
    try:
        points = [[float(v) for v in pair.split(",")] for pair in shape.get("points", "").split(";")]
        ring = np.array(points, np.float64).reshape(-1, 2)
    except ValueError as error:
        raise CliprlError(f"{where}: its polygon is no list of points x,y;x,y;...: export the task again") from error
    return polygon_annotation(label, [ring], size, where)


def _mask(label: str, shape: ElementTree.Element, size: tuple[int, int], where: str) -> Annotation:
    try:
        left, top, width, height = (int(shape.get(key, "")) for key in ("left", "top", "width", "height"))
        mask = from_cvat_runs([int(v) for v in shape.get("rle", "").split(",")], height, width)
    except (ValueError, OverflowError) as error:
        raise CliprlError(f"{where}: its mask can't be read ({error}): export the task again") from error
    if min(left, top) < 0 or top + height > size[0] or left + width > size[1]:
        raise CliprlError(
            f"{where}: its mask of {width}x{height} at ({left}, {top}) is not inside its frame of {size[1]}x{size[0]}: they must "
            "be of one size; export the task again"
        )
    packed = np.packbits(mask)

    def draw(rows: int, columns: int) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        whole = np.zeros((rows, columns), bool)
        inside = np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)
        whole[top : top + height, left : left + width] = inside
        return whole

    return Annotation(label, draw)


def _size(height: str | None, width: str | None, where: str) -> tuple[int, int]:
    try:
        return int(height or ""), int(width or "")
    except ValueError as error:
        raise CliprlError(f"{where} has the size '{width}x{height}': export the task again") from error
