"""Labels in COCO format: polygons, and run lengths in both forms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import ClassSpec, CliprlError
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sets.annotations.dataset import ANNOTATION_OPTIONS, AnnotationDataset, polygon_annotation
from cliprl.models.data.sets.annotations.frames import AnnotatedFrame, Annotation, read_text

_KINDS = ("background", "tissue", "instrument")


@register_dataset("coco", "labels in a COCO file", path_kind="file", options=ANNOTATION_OPTIONS, mark="*.coco.json")
class CocoDataset(AnnotationDataset):
    """A COCO file, of this program, CVAT, Label Studio or another tool."""

    def __init__(self, path: Path, **options: str) -> None:
        data = _load(path)
        names = {int(entry["id"]): str(entry["name"]) for entry in data["categories"]}
        known = {str(entry["name"]): spec for entry in data["categories"] if (spec := _spec(entry))}
        frames = {int(entry["id"]): _frame(entry, path) for entry in data["images"]}
        for number, entry in enumerate(data["annotations"]):
            where = f"{path}: annotation {entry.get('id', number) if isinstance(entry, dict) else number}"
            _add(entry, frames, names, where)
        super().__init__(path, frames.values(), list(names.values()), known, **options)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        data = json.loads(read_text(path))
        lists = [data[key] for key in ("images", "annotations", "categories")]
        whole = all(isinstance(item, dict) for entries in lists for item in entries)
        whole = whole and all("id" in i and "file_name" in i for i in data["images"])
        whole = whole and all("id" in c and "name" in c for c in data["categories"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CliprlError(f"{path} is no COCO file ({error!r}): it needs images, annotations and categories") from error
    if not whole:
        raise CliprlError(f"{path} is no COCO file: an image lacks its id or file_name, or a category its id or name")
    return dict(data)


def _spec(entry: Mapping[str, Any]) -> ClassSpec | None:
    """Return the class of a category that gives its color and kind."""
    kind, color, name = entry.get("kind", entry.get("supercategory")), entry.get("color"), str(entry["name"])
    if kind not in _KINDS or not (isinstance(color, list) and len(color) == 3):
        return None
    red, green, blue = (int(v) for v in color)
    return ClassSpec(name, (red, green, blue), kind, (name,))


def _frame(entry: Mapping[str, Any], path: Path) -> AnnotatedFrame:
    size = (int(entry["height"]), int(entry["width"])) if entry.get("height") and entry.get("width") else None
    video = entry.get("video")
    sequence = Path(str(video)).stem if video else path.name.split(".")[0]
    return AnnotatedFrame(
        str(entry["file_name"]), f"image {entry['id']}", sequence, size, entry.get("segmented") is True
    )


def _add(entry: Mapping[str, Any], frames: Mapping[int, AnnotatedFrame], names: Mapping[int, str], where: str) -> None:
    try:
        image, category, segmentation = entry["image_id"], entry["category_id"], entry["segmentation"]
    except KeyError as error:
        raise CliprlError(f"{where} has no {error}: export masks or polygons, not boxes alone") from error
    if category not in names:
        known = ", ".join(f"{i} {name}" for i, name in names.items())
        raise CliprlError(f"{where} is of category {category}, which the file does not list: one of {known}")
    if image not in frames:
        raise CliprlError(f"{where} is of image {image}, which the file does not list: export the task again")
    frame = frames[image]
    where = f"{where} of '{frame.name}'"
    if isinstance(segmentation, dict):
        annotation = _run_lengths(names[category], segmentation, frame, where)
    else:
        annotation = _polygons(names[category], segmentation, frame, where)
    frame.annotations.append(annotation)


def _run_lengths(label: str, segmentation: Mapping[str, Any], frame: AnnotatedFrame, where: str) -> Annotation:
    from pycocotools import mask as coco_mask

    counts, size = segmentation.get("counts"), tuple(segmentation.get("size", ()))
    if frame.size is None:
        frame.size = size if len(size) == 2 else None
    if size != frame.size or frame.size is None:
        expected = "unknown" if frame.size is None else f"{frame.size[1]}x{frame.size[0]}"
        raise CliprlError(
            f"{where}: its mask is {'x'.join(map(str, reversed(size)))} and its image {expected}: they must be of one size; "
            "export the task again"
        )
    try:
        rle: Any = {"size": list(size), "counts": counts}
        rle = coco_mask.frPyObjects(rle, *size) if isinstance(counts, list) else rle | {"counts": str(counts).encode()}
        whole = coco_mask.decode(rle).shape == size and (
            not isinstance(counts, list) or sum(counts) == size[0] * size[1]
        )
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CliprlError(f"{where}: its run lengths can't be read ({error}): export the task again") from error
    if not whole:
        raise CliprlError(f"{where}: its run lengths don't fill {size[1]}x{size[0]}: export the task again")
    return Annotation(label, lambda h, w: np.asarray(coco_mask.decode(rle)).astype(bool))


def _polygons(label: str, segmentation: Any, frame: AnnotatedFrame, where: str) -> Annotation:
    try:
        rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in segmentation]
    except (ValueError, TypeError) as error:
        raise CliprlError(f"{where}: its polygon is no list of x, y, x, y, ...: export the task again") from error
    if not rings:
        raise CliprlError(f"{where}: it has neither a mask nor a polygon: export masks or polygons, not boxes alone")
    if frame.size is None:
        raise CliprlError(f"{where}: its image has no width and height: export the task again")
    return polygon_annotation(label, rings, frame.size, where)
