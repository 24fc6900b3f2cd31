"""Labels in the format of YOLO segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.image_mask_dataset import natural_order
from cliprl.models.data.io import IMAGE_SUFFIXES, files_below
from cliprl.models.data.label_forms import read_label_text
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sets.annotations.dataset import ANNOTATION_OPTIONS, AnnotationDataset, polygon_annotation
from cliprl.models.data.sets.annotations.frames import AnnotatedFrame, Annotation, image_size
from cliprl.pipeline.sinks.shapes.polygons import center_mask

_LAYOUT = "data.yaml with names (or classes.txt), images/ and labels/ with text files of the images' names"
_OPTIONS = {name: text for name, text in ANNOTATION_OPTIONS.items() if name in ("labelled", "tissue")}
_NAME_FILES = ("classes.txt", "obj.names")


@register_dataset("yolo", "labels in YOLO segmentation format", options=_OPTIONS, named_by_path=True, mark="data.yaml")
class YoloDataset(AnnotationDataset):
    """A folder with data.yaml, and images/[PART/] beside labels/[PART/], or PART/images/ beside PART/labels/.

    An empty text file is a frame without any class, an image without one is left out. Polygons are drawn as ultralytics does.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        names_file, names = _names(folder)
        frames = []
        for text in sorted(files_below(folder, (".txt",)), key=natural_order):
            parts = text.relative_to(folder).parts
            if "labels" in parts[:-1]:
                labels = folder.joinpath(*parts[: parts.index("labels") + 1])
                frames.append(_frame(folder, labels, text, names, names_file.name))
        super().__init__(names_file, frames, list(dict.fromkeys(names.values())), images=".", **options)
        self.name = folder.resolve().name


def _frame(folder: Path, labels: Path, text: Path, names: dict[int, str], listed: str) -> AnnotatedFrame:
    place = labels.parent / "images" / text.parent.relative_to(labels)
    suffixes = (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))
    stem = text.name.removesuffix(".txt")
    image = next((path for suffix in suffixes if (path := place / f"{stem}{suffix}").is_file()), None)
    if image is None or (size := image_size(image)) is None:
        fault = "is missing" if image is None else "can't be read"
        raise CliprlError(
            f"{text}: its image '{image or place / stem}{'' if image else '.png'}' {fault}: copy it again"
        )
    parts = [part for part in place.relative_to(folder).parts if part != "images"]
    sequence = "/".join(parts) or folder.resolve().name.split(".")[0]
    frame = AnnotatedFrame(image.relative_to(folder).as_posix(), f"'{text.name}'", sequence, size, True)
    for number, line in enumerate(read_label_text(text, "text of labels", "yolo").splitlines(), 1):
        if line.strip():
            frame.annotations.append(_annotation(line.split(), names, size, f"{text}: line {number}", listed))
    return frame


def _names(folder: Path) -> tuple[Path, dict[int, str]]:
    """Return the file that lists the class names of a folder, and the names by number."""
    import yaml

    tables = [folder / "data.yaml", *sorted(folder.glob("*.y*ml")), *(folder / n for n in _NAME_FILES)]
    path = next((path for path in tables if path.is_file()), None)
    if path is None:
        raise UsageError(f"{folder} has no data.yaml: a folder of YOLO labels must hold {_LAYOUT}")
    text = read_label_text(path, "list of names", "yolo")
    try:
        # The base loader leaves every word a text: a class may be called "no", which is a truth value in YAML.
        names: Any = text.splitlines() if path.name in _NAME_FILES else yaml.load(text, yaml.BaseLoader)["names"]
        if isinstance(names, str):
            raise TypeError("one text is no list")
        numbered = names.items() if isinstance(names, dict) else enumerate(names)
        found = {int(i): str(name).strip() for i, name in numbered if str(name).strip()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CliprlError(f"{path} lists no names: it needs names: with a name for each class number") from error
    return path, found


def _annotation(words: list[str], names: dict[int, str], size: tuple[int, int], where: str, listed: str) -> Annotation:
    known = ", ".join(f"{i} {name}" for i, name in names.items())
    if not words[0].isdecimal() or int(words[0]) not in names:
        raise CliprlError(f"{where} is of class '{words[0]}', which {listed} does not list: one of {known}")
    try:
        shares = np.array([float(word) for word in words[1:]])
    except ValueError as error:
        raise CliprlError(f"{where} holds a word that is no number: export the labels again") from error
    if len(shares) < 6 or len(shares) % 2:
        raise CliprlError(
            f"{where} holds {len(shares)} numbers, and a polygon has at least 6, x and y of each point: export polygons"
        )
    height, width = size
    return polygon_annotation(
        names[int(words[0])], [shares.reshape(-1, 2) * (width, height)], size, where, fill=center_mask
    )
