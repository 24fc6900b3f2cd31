"""User data: a folder with images/, masks/ and classes.toml.

    images/[SEQUENCE/]NAME.png (or .jpg, ...)
    masks/[SEQUENCE/]NAME.png
    classes.toml

A sub-folder of images/ is a sequence, its images in the order of their names (those of each folder inside it are one
clip); images that lie in images/ itself are one sequence, named like the folder. Masks have one channel (or a palette)
and hold values, or are in color. classes.toml lists the classes in the order of their ids, the background first:

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

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cliprl.engines import ClassSpec, CliprlError, UsageError, first_fault
from cliprl.models.config.toml_file import read_toml
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, natural_order, pair_by_name
from cliprl.models.data.io import files_below, labels_from_colors, labels_from_values, read_palette_mask
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import IGNORE, Image

LAYOUT = "images/ and masks/ with files of the same names, and classes.toml"
_Byte = Annotated[int, Field(ge=0, le=255)]
_Color = tuple[_Byte, _Byte, _Byte]
_Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Class(_Strict):
    name: _Text
    kind: Literal["background", "tissue", "instrument"]
    color: Annotated[_Color, Field(strict=False)]
    value: _Byte | None = None
    prompts: Annotated[list[_Text], Field(min_length=1)] | None = None


class _Spec(_Strict):
    consecutive: bool = True
    ignore: list[_Byte | Annotated[_Color, Field(strict=False)]] = []
    classes: Annotated[list[_Class], Field(min_length=2, max_length=IGNORE - 1)]


@register_dataset("folder", "your own images and masks, with classes.toml", named_by_path=True, mark="classes.toml")
class FolderSet(ImageMaskDataset):
    """A folder of the layout above."""

    def __init__(self, folder: Path) -> None:
        self.name = folder.resolve().name
        path = folder / "classes.toml"
        spec = _load(path)
        self.classes = tuple(ClassSpec(c.name, c.color, c.kind, tuple(c.prompts or (c.name,))) for c in spec.classes)
        kinds = [c.kind for c in spec.classes]
        if kinds[0] == "instrument" or (kinds[0] != "background" and "background" in kinds):
            raise UsageError(f"{path} lists '{spec.classes[0].name}' first: list the background first")
        values = [i if c.value is None else c.value for i, c in enumerate(spec.classes)]
        self._values = {value: i for i, value in enumerate(values)}
        self._colors = {c.color: i for i, c in enumerate(spec.classes)}
        for what, known in (("name", {c.name for c in spec.classes}), ("value", self._values), ("color", self._colors)):
            if len(known) < len(values):
                raise UsageError(f"{path} gives two classes one {what}: give each class its own")
        self._values |= {mark: IGNORE for mark in spec.ignore if isinstance(mark, int)}
        self._colors |= {mark: IGNORE for mark in spec.ignore if isinstance(mark, tuple)}
        super().__init__(folder, self._pairs(folder, spec.consecutive), LAYOUT)

    def _pairs(self, folder: Path, consecutive: bool) -> list[ImageMaskPair]:
        images, masks = (_by_folder(folder / side) for side in ("images", "masks"))
        pairs: list[ImageMaskPair] = []
        for place in sorted({*images, *masks}, key=lambda place: (place != Path(), natural_order(place))):
            name, clip = (place.parts[0], place.as_posix()) if place.parts else (self.name, self.name)
            for image, mask in pair_by_name(images[place], masks[place]):
                pairs.append(ImageMaskPair(image, (mask,), name, clip if consecutive else f"{clip} {image.stem}"))
        return pairs

    def labels(self, pair: ImageMaskPair) -> Image:
        """Return the classes, by value or by color."""
        path = pair.masks[0]
        mask, palette = read_palette_mask(path)
        if palette is not None:
            return labels_from_values(mask, self._table(mask, palette, path), path)
        return (
            labels_from_values(mask, self._values, path)
            if mask.ndim == 2 or self._is_of_values(mask)
            else labels_from_colors(mask, self._colors, path)
        )

    def _table(self, mask: Image, palette: Image, path: Path) -> Mapping[int, int]:
        """Return the classes of a palette's indices: of the values, or of the colors if the values are no classes.

        Raises CliprlError if both are classes, but others: programs that choose a palette number the colors anew in each mask.
        """
        used = np.unique(mask).tolist()
        colors = {value: (int(r), int(g), int(b)) for value, (r, g, b) in zip(used, palette[used], strict=True)}
        by_color = {value: self._colors[color] for value, color in colors.items() if color in self._colors}
        by_value = {value: self._values[value] for value in used if value in self._values}
        is_gray = all(color == (value,) * 3 for value, color in colors.items())
        if is_gray or by_color == by_value or len(by_color) < len(used):
            return self._values
        if len(by_value) < len(used):
            return by_color
        value = next(value for value in used if by_color[value] != by_value[value])
        raise CliprlError(
            f"{path}: value {value} is '{self.classes[by_value[value]].name}', and its color in the palette is that of "
            f"'{self.classes[by_color[value]].name}': save the mask without a palette, in RGB by colors or in gray by values"
        )

    def _is_of_values(self, mask: Image) -> bool:
        """Whether a mask (H, W, 3) holds gray values in each channel, not the colors of classes."""
        if (mask != mask[..., :1]).any():
            return False
        values = np.unique(mask[..., 0]).tolist()
        return not all((value,) * 3 in self._colors for value in values)


def _by_folder(root: Path) -> defaultdict[Path, list[Path]]:
    """Return the images below a folder by their own folders, relative to it."""
    found = defaultdict[Path, list[Path]](list)
    for path in files_below(root):
        found[path.parent.relative_to(root)].append(path)
    return found


def _load(path: Path) -> _Spec:
    if not path.is_file():
        raise UsageError(
            f"{path} is missing: a folder of data must hold {LAYOUT}, which lists the classes, the background first, each as "
            '[[classes]] with name = "hook", kind = "instrument" (or "tissue", "background"), color = [0, 255, 0], and its value '
            "in masks, value = 1"
        )
    try:
        return _Spec.model_validate(read_toml(path))
    except ValidationError as error:
        raise UsageError(
            f"{path}: {first_fault(error)}; a class has name, kind and color, and may have value and prompts"
        ) from error
