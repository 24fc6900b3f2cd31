"""The vocal-fold set of Laves et al. 2019 (CC BY 4.0): in-vivo larynx surgery with seven hand-drawn classes."""

from __future__ import annotations

from pathlib import Path

from cliprl.engines import ClassSpec
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, natural_order, pair_by_name
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.splits import Split

NAME = "vocalfolds"
LICENCE = "CC BY 4.0"
ATTRIBUTION = (
    "M.-H. Laves, J. Bicker, L. A. Kahrs, T. Ortmaier: A dataset of laryngeal endoscopic images with comparative study "
    "on convolution neural network-based semantic segmentation, 2019 (arXiv:1807.06081)"
)
# Classes to ignore for instrument-or-not labels: borders, and a tube that is no instrument.
UNSURE = ("void", "intubation-tube")
LAYOUT = "images/seqN/*.jpg and masks/seqN/*.png"
VOCALFOLD_CLASSES: tuple[ClassSpec, ...] = (
    ClassSpec("void", (0, 0, 0), "background", ("the dark surround of an endoscope's image",)),
    ClassSpec("vocal-folds", (255, 160, 165), "tissue", ("the vocal folds",)),
    ClassSpec("other-tissue", (255, 85, 0), "tissue", ("tissue of the larynx",)),
    ClassSpec("glottal-space", (0, 50, 128), "tissue", ("the glottal space", "the dark gap between the vocal folds")),
    ClassSpec("pathology", (255, 0, 0), "tissue", ("a lesion of the vocal folds",)),
    ClassSpec("surgical-tool", (0, 255, 0), "instrument", ("a surgical instrument",)),
    ClassSpec("intubation-tube", (255, 255, 125), "instrument", ("an intubation tube",)),
)


SEQUENCES = (5, 6, 7, 8)


@register_dataset(
    NAME,
    "the vocal-fold set, 7 classes of the larynx",
    splits={f"without-seq{n}": Split.of_numbers("seq", SEQUENCES, (n,)) for n in SEQUENCES},
    source={"name": NAME, "licence": LICENCE, "attribution": ATTRIBUTION},
)
class VocalFolds(ImageMaskDataset):
    """`folder` holds images/seqN/*.jpg and masks/seqN/*.png. Frames of a sequence are not consecutive: each is its own clip."""

    name = NAME
    classes = VOCALFOLD_CLASSES

    def __init__(self, folder: Path) -> None:
        pairs: list[ImageMaskPair] = []
        for images in sorted((folder / "images").glob("seq*"), key=natural_order):
            found = pair_by_name(images.glob("*.jpg"), (folder / "masks" / images.name).glob("*.png"))
            pairs += [
                ImageMaskPair(image, (mask,), images.name, f"{images.name} {image.stem}") for image, mask in found
            ]
        super().__init__(folder, pairs, LAYOUT)
