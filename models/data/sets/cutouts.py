"""Frames of EndoVis 2018 with masks of instrument types.

The masks hold the numbers of the instrument-type annotation of that set (Gonzalez et al., ISINet, arXiv:2007.05533).
"""

from __future__ import annotations

from pathlib import Path

from cliprl.engines import ClassSpec
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, natural_order, pair_by_name
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sets.endovis2017 import BACKGROUND_CLASS

LAYOUT = "images/<type>/seq_N_frameNNN.jpg and masks/<type>/seq_N_frameNNN.png"
TYPE_CLASSES: tuple[ClassSpec, ...] = (
    BACKGROUND_CLASS,
    ClassSpec("bipolar-forceps", (0, 255, 0), "instrument", ("bipolar forceps",)),
    ClassSpec("prograsp-forceps", (0, 255, 255), "instrument", ("prograsp forceps",)),
    ClassSpec("large-needle-driver", (125, 255, 12), "instrument", ("a large needle driver",)),
    ClassSpec("monopolar-curved-scissors", (187, 155, 25), "instrument", ("monopolar curved scissors",)),
    ClassSpec("ultrasound-probe", (12, 255, 141), "instrument", ("an ultrasound probe",)),
    ClassSpec("suction-instrument", (123, 15, 175), "instrument", ("a suction instrument",)),
    ClassSpec("clip-applier", (255, 255, 125), "instrument", ("a clip applier",)),
)


@register_dataset("cutouts", "frames of EndoVis 2018 with instrument types")
class Cutouts(ImageMaskDataset):
    """`folder` holds images/ and masks/. Sequences are those of EndoVis 2018, "endovis2018/seq_10":
    where that set is tested, these frames must not be trained on."""

    name = "cutouts"
    classes = TYPE_CLASSES

    def __init__(self, folder: Path) -> None:
        pairs: list[ImageMaskPair] = []
        for images in sorted((folder / "images").glob("*"), key=natural_order):
            found = pair_by_name(images.glob("*.jpg"), (folder / "masks" / images.name).glob("*.png"))
            for image, mask in found:
                sequence = f"endovis2018/{image.stem.rsplit('_frame', 1)[0]}"
                pairs.append(ImageMaskPair(image, (mask,), sequence, f"{sequence} {image.stem}"))
        super().__init__(folder, pairs, LAYOUT)
