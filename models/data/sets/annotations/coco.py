"""Labels in COCO format: polygons, and run lengths in both forms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from cliprl.engines import ClassSpec, CliprlError, first_fault
from cliprl.models.data.label_forms import form_error, read_label_text
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sets.annotations.dataset import ANNOTATION_OPTIONS, AnnotationDataset, polygon_annotation
from cliprl.models.data.sets.annotations.frames import AnnotatedFrame, Annotation, sequence_of

_Size = Annotated[int, Field(ge=0, le=1 << 16)]
_Channel = Annotated[int, Field(ge=0, le=255)]


class _Category(BaseModel):
    id: int
    name: str = Field(min_length=1)
    supercategory: str | None = None
    kind: Any = None
    color: Any = None

    def spec(self) -> ClassSpec | None:
        """Return the class of a category that gives its color and kind."""
        try:
            known = _KnownCategory.model_validate(self.model_dump() | {"kind": self.kind or self.supercategory})
        except ValidationError:
            return None
        return ClassSpec(self.name, known.color, known.kind, (self.name,))


class _KnownCategory(BaseModel):
    kind: Literal["background", "tissue", "instrument"]
    color: tuple[_Channel, _Channel, _Channel]


class _Image(BaseModel):
    id: int
    file_name: str = Field(min_length=1)
    height: _Size | None = None
    width: _Size | None = None
    video: Any = None
    segmented: Any = None

    def frame(self, path: Path) -> AnnotatedFrame:
        """Return the frame, without annotations."""
        size = (self.height, self.width) if self.height and self.width else None
        sequence = Path(str(self.video)).stem if self.video else sequence_of(path)
        return AnnotatedFrame(self.file_name, f"image {self.id}", sequence, size, self.segmented is True)


class _Annotation(BaseModel):
    id: Any = None
    image_id: int
    category_id: int
    segmentation: dict[str, Any] | list[Any] | None = None


class _File(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Annotation]


@register_dataset(
    "coco",
    "labels in a COCO file",
    path_kind="file",
    named_by_path=True,
    options=ANNOTATION_OPTIONS,
    mark="*.coco.json",
)
class CocoDataset(AnnotationDataset):
    """A COCO file, of this program, CVAT, Label Studio, Roboflow or another tool."""

    def __init__(self, path: Path, **options: str) -> None:
        data = _load(path)
        used = {annotation.category_id for annotation in data.annotations}
        # Roboflow lists the data set itself as a category, the parent of the others: no class.
        parents = {category.supercategory for category in data.categories}
        roots = [c.id for c in data.categories if c.supercategory == "none" and c.name in parents and c.id not in used]
        names = {c.id: c.name for c in data.categories if c.id not in roots}
        known = {c.name: spec for c in data.categories if (spec := c.spec())}
        frames = {image.id: image.frame(path) for image in data.images}
        for number, entry in enumerate(data.annotations):
            _add(entry, frames, names, f"{path}: annotation {number if entry.id is None else entry.id}")
        super().__init__(path, frames.values(), list(dict.fromkeys(names.values())), known, **options)


def _load(path: Path) -> _File:
    try:
        data = json.loads(read_label_text(path, "COCO file", "coco"))
        file = _File.model_validate(data)
    except (ValueError, RecursionError) as error:
        raise form_error(path, "COCO file", _fault(error), "coco") from error
    for what, entries in (("images", file.images), ("categories", file.categories)):
        seen: dict[int, Any] = {}
        for entry in entries:
            if entry.id in seen:
                raise CliprlError(f"{path}: two {what} have the id {entry.id}: export the task again")
            seen[entry.id] = entry
    return file


def _fault(error: Exception) -> str:
    """Return the place, the rule and the value of the first wrong field."""
    needs = "it needs images, annotations and categories"
    if not isinstance(error, ValidationError):
        return f" ({error}): {needs}"
    fault = first_fault(error)
    return f": {needs}" if len(fault.path) < 2 else f": {fault}; export the task again"


def _add(entry: _Annotation, frames: Mapping[int, AnnotatedFrame], names: Mapping[int, str], where: str) -> None:
    if entry.category_id not in names:
        known = ", ".join(f"{i} {name}" for i, name in names.items())
        raise CliprlError(f"{where} is of category {entry.category_id}, which the file does not list: one of {known}")
    if entry.image_id not in frames:
        raise CliprlError(f"{where} is of image {entry.image_id}, which the file does not list: export the task again")
    frame, name = frames[entry.image_id], names[entry.category_id]
    where = f"{where} of '{frame.name}'"
    if not entry.segmentation:
        raise CliprlError(
            f"{where} has no segmentation, neither a mask nor a polygon: export masks or polygons, not boxes alone"
        )
    if isinstance(entry.segmentation, dict):
        frame.annotations.append(_run_lengths(name, entry.segmentation, frame, where))
    else:
        frame.annotations.append(_polygons(name, entry.segmentation, frame, where))


def _run_lengths(label: str, segmentation: Mapping[str, Any], frame: AnnotatedFrame, where: str) -> Annotation:
    from pycocotools import mask as coco_mask

    counts, size = segmentation.get("counts"), segmentation.get("size")
    if not (isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)):
        raise CliprlError(
            f"{where}: its mask has the size {str(size)[:40]!r}, not [HEIGHT, WIDTH]: export the task again"
        )
    size = tuple(size)
    if frame.size is None:
        frame.size = size
    if size != frame.size:
        raise CliprlError(
            f"{where}: its mask is {size[1]}x{size[0]} and its image {frame.size[1]}x{frame.size[0]}: they must be of one size; "
            "export the task again"
        )
    try:
        lengths = _lengths(counts) if isinstance(counts, str) else [int(count) for count in counts or ()]
        if min(lengths, default=-1) < 0 or sum(lengths) != size[0] * size[1]:
            raise ValueError(f"they don't fill {size[1]}x{size[0]}")
        rle: Any = coco_mask.frPyObjects({"size": list(size), "counts": lengths}, *size)
    except (ValueError, TypeError, OverflowError) as error:
        raise CliprlError(f"{where}: its run lengths can't be read ({error}): export the task again") from error
    return Annotation(label, lambda h, w: np.asarray(coco_mask.decode(rle)).astype(bool))


def _lengths(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed form holds. Raises ValueError for damaged text."""
    lengths: list[int] = []
    value = bits = 0
    for code in (ord(character) - 48 for character in text):
        if not 0 <= code < 64:
            raise ValueError(f"'{chr(code + 48)}' is no part of them")
        value |= (code & 31) << bits
        bits += 5
        if not code & 32:
            # From the fourth on, a length is the difference to the one before the last.
            before = lengths[-2] if len(lengths) > 2 else 0
            lengths.append(value - (code & 16 and 1 << bits) + before)
            value = bits = 0
    return lengths


def _polygons(label: str, segmentation: Sequence[Any], frame: AnnotatedFrame, where: str) -> Annotation:
    try:
        rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in segmentation]
    except (ValueError, TypeError, OverflowError) as error:
        raise CliprlError(f"{where}: its polygon is no list of x, y, x, y, ...: export the task again") from error
    if frame.size is None:
        raise CliprlError(f"{where}: its image has no width and height: export the task again")
    return polygon_annotation(label, rings, frame.size, where)
