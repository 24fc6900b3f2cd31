"""The vocal-fold set of Laves et al. 2019 (CC BY 4.0): in-vivo larynx surgery with seven hand-drawn classes.

Of those only "surgical tool" has a counterpart among the scene classes, so the labels are partial: a tool is some
instrument, tissue and gap are none, and nothing is said of the void at borders nor of the ventilation tube.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Image, Sample

NAME = "vocalfolds"
LICENCE = "CC BY 4.0"
ATTRIBUTION = (
    "M.-H. Laves, J. Bicker, L. A. Kahrs, T. Ortmaier: A dataset of laryngeal endoscopic images with comparative study "
    "on convolution neural network-based semantic segmentation, 2019 (arXiv:1807.06081)"
)
VOID, TOOL, TUBE = 0, 5, 6
CLASSES = 7


class Larynx:
    """Pictures 512x512 with partial labels. `folder` holds images/seqN/*.jpg and masks/seqN/*.png.

    Raises UsageError for a folder that is not of that layout, CliprlError for a picture whose partner is missing.
    """

    name = NAME

    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "images").glob("seq*/*.jpg"))
        if not self.images:
            raise UsageError(f"no larynx frames in '{folder}': data.larynx must be a folder with images/seqN/*.jpg")
        self.masks = [folder / "masks" / p.parent.name / f"{p.stem}.png" for p in self.images]
        for mask in self.masks:
            if not mask.is_file():
                raise CliprlError(f"{mask} is missing though its picture is there: copy the whole set again")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        path, mask_path = self.images[index], self.masks[index]
        image, mask = cv2.imread(str(path)), cv2.imread(str(mask_path), cv2.IMREAD_UNCHANGED)
        if image is None or mask is None or image.shape[:2] != mask.shape:
            raise CliprlError(f"{path} and {mask_path} are not a picture and a mask of one size: copy them again")
        if mask.max() >= CLASSES:
            raise CliprlError(f"{mask_path} holds class {mask.max()}: the set has 0..{CLASSES - 1}")
        return Sample(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8), _CODES[mask], path.parent.name)


def _codes() -> Image:
    codes = np.full(CLASSES, NOT_INSTRUMENT, np.uint8)
    codes[[VOID, TUBE]], codes[TOOL] = IGNORE, INSTRUMENT
    return codes


_CODES = _codes()
