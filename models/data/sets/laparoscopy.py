"""Images of operations with instrument masks: 0 none, 1 instrument, 255 ignored; the name of a file begins with its case."""

from __future__ import annotations

import re
from pathlib import Path

from cliprl.engines import ClassSpec
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, pair_by_name
from cliprl.models.data.io import IMAGE_SUFFIXES
from cliprl.models.data.label_mapping import UNION_CLASSES
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import IGNORE

NAME = "laparoscopy"
VALUES = {0: 0, 1: 1, IGNORE: IGNORE}
LAYOUT = "images/CASE-frame-N.jpg or images/CLIP_fN.jpg, and masks/ with PNG files of the same names"
# The frame number at the end of a file's name.
FRAME = re.compile(r"(-frame-|_f)\d+$")


@register_dataset(NAME, "images with instrument masks, sequences by case")
class LaparoscopyFrames(ImageMaskDataset):
    """`folder` holds images/ and masks/. Frames of a case are minutes apart: each is its own clip."""

    name = NAME
    classes: tuple[ClassSpec, ...] = UNION_CLASSES
    values = VALUES

    def __init__(self, folder: Path) -> None:
        images = [path for path in (folder / "images").glob("*") if path.suffix.lower() in IMAGE_SUFFIXES]
        pairs = [
            ImageMaskPair(image, (mask,), FRAME.sub("", image.stem), image.stem)
            for image, mask in pair_by_name(images, (folder / "masks").glob("*.png"))
        ]
        super().__init__(folder, pairs, LAYOUT)
