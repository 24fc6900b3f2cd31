"""Labels in Label Studio's JSON: brush masks and polygons."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from cliprl.engines import CliprlError
from cliprl.models.data.label_forms import form_error, read_label_text
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sets.annotations.dataset import ANNOTATION_OPTIONS, AnnotationDataset, polygon_annotation
from cliprl.models.data.sets.annotations.frames import AnnotatedFrame, Annotation, sequence_of
from cliprl.pipeline.sinks.shapes.run_lengths import from_brush_runs

_SHAPES = ("brushlabels", "polygonlabels")
# Regions that are not read. Other results of a frame, such as a choice or a text, are no regions.
_SHAPE_NAMES = ("rectangle", "ellipse", "keypoint", "bitmask", "vector", "polygon", "brush")
_OTHERS = {f"{name}{ending}" for name in _SHAPE_NAMES for ending in ("", "labels")} - set(_SHAPES)


@register_dataset(
    "labelstudio",
    "labels in Label Studio JSON",
    path_kind="file",
    named_by_path=True,
    options=ANNOTATION_OPTIONS,
    mark="*.labelstudio.json",
)
class LabelStudioDataset(AnnotationDataset):
    """An export ("JSON", not "JSON-MIN"): of each task its last annotation, or its last prediction without one.

    The classes are those that occur, and those of the option `labelled`.
    """

    def __init__(self, path: Path, **options: str) -> None:
        # The export does not list its labels, only those that were used.
        names = dict.fromkeys(filter(None, options.get("labelled", "").split(",")))
        frames = []
        for number, task in enumerate(_load(path)):
            item = f"task {task.get('id', number)}"
            video = task["data"].get("video")
            sequence = PurePosixPath(str(video)).stem if video else sequence_of(path)
            result = _result(task)
            frame = AnnotatedFrame(_name(task["data"], f"{path}: {item}"), item, sequence, None, result is not None)
            for place, entry in enumerate(result or ()):
                where = f"{path}: {item}, result {place} of '{frame.name}'"
                if (annotation := _annotation(entry, frame, where)) is not None:
                    frame.annotations.append(annotation)
                    names[annotation.label] = None
            frames.append(frame)
        super().__init__(path, frames, list(names), **options)


def _load(path: Path) -> list[dict[str, Any]]:
    wanted = "list of Label Studio tasks"
    try:
        tasks = json.loads(read_label_text(path, wanted, "labelstudio"))
        whole = isinstance(tasks, list) and all(isinstance(task["data"], dict) for task in tasks)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise form_error(path, wanted, f" ({error!r}): export it as JSON, not as JSON-MIN", "labelstudio") from error
    if not whole:
        raise form_error(path, wanted, ": export it as JSON, not as JSON-MIN", "labelstudio")
    return list(tasks)


def _name(data: Mapping[str, Any], where: str) -> str:
    """Return the name of a task's image, from its address."""
    address = data.get("image") or next((v for v in data.values() if isinstance(v, str) and "." in v), None)
    if not isinstance(address, str):
        raise CliprlError(f"{where} has no image in its data: export the tasks with their data")
    if "/" not in address:  # a name alone, which may hold any mark of an address
        return address
    parts = urlsplit(address)
    if served := parse_qs(parts.query).get("d"):
        # A file of a folder that Label Studio serves: the folder tells frames of several videos apart.
        return "/".join(PurePosixPath(served[0].replace("\\", "/")).parts[-2:])
    name = unquote(parts.path) if parts.scheme or parts.query else address
    return PurePosixPath(name.replace("\\", "/")).name


def _result(task: Mapping[str, Any]) -> list[Any] | None:
    """Return the items of the last annotation that was not cancelled, else of the last prediction; None without one."""
    for key in ("annotations", "completions", "predictions"):
        made = task.get(key)
        done = [one for one in made if isinstance(one, dict)] if isinstance(made, list) else []
        results = [one.get("result") for one in done if not one.get("was_cancelled")]
        if results:
            return list(results[-1]) if isinstance(results[-1], list) else []
    return None


def _annotation(entry: Any, frame: AnnotatedFrame, where: str) -> Annotation | None:
    kind = str(entry.get("type")) if isinstance(entry, dict) else ""
    if kind in _OTHERS:
        raise CliprlError(f"{where} is of type '{kind}': only {' and '.join(_SHAPES)} are read; convert or remove it")
    if kind not in _SHAPES:
        return None
    if angle := entry.get("image_rotation"):
        raise CliprlError(
            f"{where} was drawn on the image turned by {angle} degrees, which is not read: turn it back, and export again"
        )
    labels = entry["value"].get(kind) if isinstance(entry.get("value"), dict) else None
    if not (isinstance(labels, list) and len(labels) == 1):
        raise CliprlError(f"{where} has the labels {str(labels)[:80]}, and must have one: correct it, and export again")
    try:
        label, value, size = labels[0], entry["value"], (int(entry["original_height"]), int(entry["original_width"]))
        if frame.size is None:
            frame.size = size
        if size != frame.size:
            raise ValueError(
                f"it is of {size[1]}x{size[0]}, and others of its image of {frame.size[1]}x{frame.size[0]}"
            )
        if kind == "brushlabels":
            packed = np.packbits(from_brush_runs(value["rle"], *size))
            return Annotation(str(label), lambda h, w: _unpacked(packed, h, w))
        ring = np.array(value["points"], np.float64).reshape(-1, 2) * (size[1] / 100, size[0] / 100)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise CliprlError(f"{where} can't be read ({error}): export the tasks again") from error
    return polygon_annotation(str(label), [ring], size, where)


def _unpacked(packed: Any, height: int, width: int) -> Any:
    return np.unpackbits(packed, count=height * width).reshape(height, width).astype(bool)
