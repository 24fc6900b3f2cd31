"""One frame of a da Vinci recording in the form of EndoVis 2017, with a mask of parts for each of its two instruments."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair
from cliprl.models.data.io import check_size, labels_from_values, read_image, read_mask
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import Image
from cliprl.models.data.sets.endovis2017 import PART_CLASSES, PART_VALUES, cropped

LAYOUT = "frame.png with left_frame.png and right_frame.png beside it"


@register_dataset("davinci_frame", "one da Vinci frame with a mask of parts for each instrument")
class DavinciFrame(ImageMaskDataset):
    """`folder` holds frame.png, left_frame.png and right_frame.png (10 shaft, 20 wrist, 30 clasper)."""

    name = "davinci_frame"
    classes = PART_CLASSES

    def __init__(self, folder: Path) -> None:
        frame, masks = folder / "frame.png", (folder / "left_frame.png", folder / "right_frame.png")
        pairs = [ImageMaskPair(frame, masks, "frame", "frame")] if frame.is_file() else []
        super().__init__(folder, pairs, LAYOUT)

    def image(self, pair: ImageMaskPair) -> Image:
        """Return the cropped camera image."""
        return cropped(read_image(pair.image))

    def labels(self, pair: ImageMaskPair) -> Image:
        """Return the parts of both instruments."""
        left, right = (labels_from_values(read_mask(mask), PART_VALUES, mask) for mask in pair.masks)
        check_size(left, right, *pair.masks)
        return cropped(np.where(right > 0, right, left))
