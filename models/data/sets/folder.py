"""User data: a folder with images/, masks/ and classes.toml.

    images/[SEQUENCE/]NAME.png (or .jpg, ...)
    masks/[SEQUENCE/]NAME.png
    classes.toml

A sub-folder of images/ is a sequence, its images in the order of their names; images that lie in images/ itself are one
sequence, named like the folder. Masks have one channel (or a palette) and hold values, or are in color. classes.toml lists
the classes in the order of their ids, the background first:

    consecutive = true        # whether the images of a sequence follow each other as video; true if left out
    ignore = [255]            # values of unknown pixels (for color masks: [[255, 255, 255]]); none if left out

    [[classes]]
    name = "background"
    kind = "background"       # background, tissue or instrument
    color = [0, 0, 0]         # R, G, B: the value in color masks, and the color of the overlay
    value = 0                 # the value in indexed masks; the id if left out
    prompts = ["tissue"]      # text prompts; its name if left out
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, natural_order, pair_by_name
from cliprl.models.data.io import IMAGE_SUFFIXES, Color, labels_from_colors, labels_from_values, read_palette_mask
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import IGNORE, Image

LAYOUT = "images/ and masks/ with files of the same names, and classes.toml"
CLASS_KINDS = ("background", "tissue", "instrument")
SPEC_KEYS = ("consecutive", "ignore", "classes")
CLASS_KEYS = ("name", "kind", "color", "value", "prompts")


@register_dataset("folder", "your own images and masks, with classes.toml", mark="classes.toml")
class FolderSet(ImageMaskDataset):
    """A folder of the layout above."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        path = folder / "classes.toml"
        table = _load(path)
        entries = table["classes"]
        self.classes = tuple(_class(entry, path) for entry in entries)
        self._values = {int(entry.get("value", i)): i for i, entry in enumerate(entries)}
        self._colors = {spec.color: i for i, spec in enumerate(self.classes)}
        for what, known in (("value", self._values), ("color", self._colors)):
            if len(known) < len(entries):
                raise UsageError(f"{path} gives two classes one {what}: a mask could not tell them apart")
        self._ignore(table.get("ignore", []))
        super().__init__(folder, self._pairs(folder, bool(table.get("consecutive", True))), LAYOUT)

    def _ignore(self, marks: list[Any]) -> None:
        self._values |= {mark: IGNORE for mark in marks if isinstance(mark, int)}
        self._colors |= {_color(mark): IGNORE for mark in marks if isinstance(mark, list)}

    def _pairs(self, folder: Path, consecutive: bool) -> list[ImageMaskPair]:
        root = folder / "images"
        pairs: list[ImageMaskPair] = []
        for images in [root, *sorted((p for p in root.glob("*") if p.is_dir()), key=natural_order)]:
            masks = folder / "masks" / images.relative_to(root)
            name = self.name if images == root else images.name
            for image, mask in pair_by_name(_images(images), _images(masks)):
                pairs.append(ImageMaskPair(image, (mask,), name, name if consecutive else f"{name} {image.stem}"))
        return pairs

    def labels(self, pair: ImageMaskPair) -> Image:
        """Return the classes, by value or by color."""
        path = pair.masks[0]
        mask = read_palette_mask(path)
        return (
            labels_from_values(mask, self._values, path)
            if mask.ndim == 2
            else labels_from_colors(mask, self._colors, path)
        )


def _images(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES]


def _load(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UsageError(f"{path} is missing: a folder of data must hold {LAYOUT}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML ({error}): correct it") from error
    _check_keys(table, SPEC_KEYS, path)
    entries = table.get("classes")
    if not isinstance(entries, list) or not 2 <= len(entries) < IGNORE:
        raise UsageError(f"{path} must list at least two [[classes]], the background first")
    return table


def _class(entry: Mapping[str, Any], path: Path) -> ClassSpec:
    _check_keys(entry, CLASS_KEYS, path)
    try:
        name, kind, color = str(entry["name"]), str(entry["kind"]), _color(entry["color"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: class {dict(entry)} lacks or garbles a key ({error!r}): it needs name, kind, color"
        ) from error
    if kind not in CLASS_KINDS or not all(0 <= v <= 255 for v in color):
        raise UsageError(
            f"{path}: class '{name}' has kind '{kind}' and color {color}: {', '.join(CLASS_KINDS)}; 0..255"
        )
    return ClassSpec(name, color, kind, tuple(entry.get("prompts", (name,))))


def _check_keys(table: Mapping[str, Any], known: tuple[str, ...], path: Path) -> None:
    for key in table:
        if key not in known:
            raise UsageError(f"{path} has an unknown key '{key}': one of {', '.join(known)}")


def _color(value: Any) -> Color:
    red, green, blue = (int(v) for v in value)
    return red, green, blue
