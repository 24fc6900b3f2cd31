"""CholecSeg8k: 13 classes in 8,080 frames of 17 videos of Cholec80, 854x480 (Hong et al. 2020, arXiv:2012.12453)."""

from __future__ import annotations

from pathlib import Path

from cliprl.engines import ClassSpec
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, natural_order, pair_by_name
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import IGNORE
from cliprl.models.data.splits import Split

LAYOUT = "videoXX/videoXX_NNNNN/frame_N_endo.png with frame_N_endo_watershed_mask.png beside it"
MASK_ENDING = "_watershed_mask"

CHOLECSEG_CLASSES: tuple[ClassSpec, ...] = (
    ClassSpec("black-background", (127, 127, 127), "background", ("the dark surround of an endoscope's image",)),
    ClassSpec("abdominal-wall", (210, 140, 140), "tissue", ("the abdominal wall",)),
    ClassSpec("liver", (255, 114, 114), "tissue", ("the liver",)),
    ClassSpec("gastrointestinal-tract", (231, 70, 156), "tissue", ("the gastrointestinal tract",)),
    ClassSpec("fat", (186, 183, 75), "tissue", ("fat", "fatty tissue")),
    ClassSpec("grasper", (170, 255, 0), "instrument", ("a grasper", "a laparoscopic grasper")),
    ClassSpec("connective-tissue", (255, 85, 0), "tissue", ("connective tissue",)),
    ClassSpec("blood", (255, 0, 0), "tissue", ("blood",)),
    ClassSpec("cystic-duct", (255, 255, 0), "tissue", ("the cystic duct",)),
    ClassSpec("l-hook-electrocautery", (169, 255, 184), "instrument", ("an L-hook electrocautery",)),
    ClassSpec("gallbladder", (255, 160, 165), "tissue", ("the gallbladder",)),
    ClassSpec("hepatic-vein", (0, 50, 128), "tissue", ("the hepatic vein",)),
    ClassSpec("liver-ligament", (111, 74, 0), "tissue", ("a ligament of the liver",)),
)
WATERSHED = {50: 0, 11: 1, 21: 2, 13: 3, 12: 4, 31: 5, 23: 6, 24: 7, 25: 8, 32: 9, 22: 10, 33: 11, 5: 12}


TEST_VIDEOS = ("video37", "video48", "video55")
TRAIN_VIDEOS = tuple(f"video{n:02d}" for n in (1, 9, 12, 17, 18, 20, 24, 25, 26, 27, 28, 35, 43, 52))


@register_dataset(
    "cholecseg8k", "CholecSeg8k, 13 classes of cholecystectomy", splits={"videos": Split(TRAIN_VIDEOS, TEST_VIDEOS)}
)
class CholecSeg8k(ImageMaskDataset):
    """`folder` holds video01, video09, ...; a video is a sequence, each of its pieces of 80 frames a clip."""

    name = "cholecseg8k"
    classes = CHOLECSEG_CLASSES
    values = WATERSHED | {0: IGNORE, 255: IGNORE}

    def __init__(self, folder: Path) -> None:
        pairs: list[ImageMaskPair] = []
        for clip in sorted(folder.glob("**/video*/video*_*"), key=natural_order):
            found = pair_by_name(
                clip.glob("*_endo.png"), clip.glob(f"*_endo{MASK_ENDING}.png"), mask_ending=MASK_ENDING
            )
            pairs += [ImageMaskPair(image, (mask,), clip.parent.name, clip.name) for image, mask in found]
        super().__init__(folder, pairs, LAYOUT)
