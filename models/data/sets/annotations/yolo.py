"""Labels in the format of YOLO segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.image_mask_dataset import natural_order
from cliprl.models.data.io import IMAGE_SUFFIXES
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sets.annotations.dataset import ANNOTATION_OPTIONS, AnnotationDataset, polygon_annotation
from cliprl.models.data.sets.annotations.frames import AnnotatedFrame, Annotation, image_size, read_text
from cliprl.pipeline.sinks.shapes.polygons import center_mask

_LAYOUT = "data.yaml with names, images/ and labels/ with text files of the images' names"
_OPTIONS = {name: text for name, text in ANNOTATION_OPTIONS.items() if name in ("labelled", "tissue")}


@register_dataset("yolo", "labels in YOLO segmentation format", options=_OPTIONS, mark="data.yaml")
class YoloDataset(AnnotationDataset):
    """A folder with data.yaml, images/[PART/] and labels/[PART/].

    An empty text file is a frame without any class, an image without one is left out. Polygons are drawn as ultralytics does.
    """

    def __init__(self, folder: Path, **options: str) -> None:
        names = _names(folder / "data.yaml")
        frames = []
        for text in sorted((folder / "labels").rglob("*.txt"), key=natural_order):
            part = text.parent.relative_to(folder / "labels")
            stem = text.name.removesuffix(".txt")
            images = [folder / "images" / part / f"{stem}{suffix}" for suffix in (*IMAGE_SUFFIXES, ".JPG", ".PNG")]
            image = next((path for path in images if path.is_file()), None)
            if image is None or (size := image_size(image)) is None:
                fault = "is missing" if image is None else "can't be read"
                raise CliprlError(f"{text}: its image '{image or images[0]}' {fault}: copy it again")
            name = image.relative_to(folder / "images").as_posix()
            sequence = part.name or folder.resolve().name.split(".")[0]
            frame = AnnotatedFrame(name, f"'{text.name}'", sequence, size, True)
            for number, line in enumerate(read_text(text).splitlines(), 1):
                if line.strip():
                    frame.annotations.append(_annotation(line.split(), names, size, f"{text}: line {number}"))
            frames.append(frame)
        super().__init__(folder / "data.yaml", frames, list(names.values()), images="images", **options)
        self.name = folder.resolve().name


def _names(path: Path) -> dict[int, str]:
    """Return the class names of data.yaml by number."""
    import yaml

    if not path.is_file():
        raise UsageError(f"{path} is missing: a folder of YOLO labels must hold {_LAYOUT}")
    try:
        names: Any = yaml.safe_load(read_text(path))["names"]
        return {int(i): str(name) for i, name in (names.items() if isinstance(names, dict) else enumerate(names))}
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CliprlError(f"{path} lists no names: it needs names: with a name for each class number") from error


def _annotation(words: list[str], names: dict[int, str], size: tuple[int, int], where: str) -> Annotation:
    known = ", ".join(f"{i} {name}" for i, name in names.items())
    if not words[0].isdecimal() or int(words[0]) not in names:
        raise CliprlError(f"{where} is of class '{words[0]}', which data.yaml does not list: one of {known}")
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
