"""The EndoVis 2018 robotic scene segmentation challenge: 12 classes, 15 sequences of 149 frames, and the official test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cliprl.engines import CliprlError
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, natural_order, pair_by_name
from cliprl.models.data.io import Color, labels_from_colors, read_mask
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import Image
from cliprl.models.data.splits import Split
from cliprl.pipeline.synthetic.classes import SCENE_CLASSES

LAYOUT = "miccai_challenge_*/seq_N/left_frames/frameNNN.png with labels/frameNNN.png beside it"
TEST = "test-"


SEQUENCES = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16)


@register_dataset(
    "endovis2018",
    "EndoVis 2018, 12 classes of a robotic scene",
    splits={
        "A": Split.of_numbers("seq_", SEQUENCES, (2, 5, 9, 15)),
        "B": Split(tuple(f"seq_{n}" for n in SEQUENCES), tuple(f"{TEST}seq_{n}" for n in range(1, 5))),
    },
)
class EndoVis2018(ImageMaskDataset):
    """`folder` holds the releases as they were published: miccai_challenge_2018_release_1/seq_1, ...

    A sequence below a folder with "test" in its name is called "test-seq_N": the test re-uses the numbers 1 to 4 for other
    recordings. Colors are those of each sequence's labels.json, in either of its forms; where it has none, the published.
    """

    name = "endovis2018"
    classes = SCENE_CLASSES

    def __init__(self, folder: Path) -> None:
        pairs: list[ImageMaskPair] = []
        self._palettes: dict[str, dict[Color, int]] = {}
        for frames in sorted(folder.glob("**/seq_*/left_frames"), key=natural_order):
            root = frames.parent
            is_test = any("test" in part.lower() for part in root.relative_to(folder).parts)
            sequence = (TEST if is_test else "") + root.name
            self._palettes[sequence] = read_palette(root / "labels.json")
            found = pair_by_name(frames.glob("*.png"), (root / "labels").glob("*.png"))
            pairs += [ImageMaskPair(image, (mask,), sequence, sequence) for image, mask in found]
        super().__init__(folder, pairs, LAYOUT)

    def labels(self, pair: ImageMaskPair) -> Image:
        """Return the twelve classes by their colors."""
        mask = pair.masks[0]
        return labels_from_colors(read_mask(mask), self._palettes[pair.sequence], mask)


def read_palette(path: Path) -> dict[Color, int]:
    """Class ids by color, from a labels.json: a list of classes, or an object with such a list as `classes`.

    Names differ between the two forms and are not looked at; of a color the first three channels count.
    Raises CliprlError for a file of neither form.
    """
    if not path.is_file():
        return {spec.color: number for number, spec in enumerate(SCENE_CLASSES)}
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        entries = data["classes"] if isinstance(data, dict) else data
        palette = {_color(entry["color"]): int(entry["classid"]) for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise CliprlError(f"{path} is no list of classes with color and classid ({error!r}): copy it again") from error
    odd = [number for number in palette.values() if not 0 <= number < len(SCENE_CLASSES)]
    if odd or not palette:
        raise CliprlError(f"{path} has class id {odd[0] if odd else 'none'}: ids are 0..{len(SCENE_CLASSES) - 1}")
    return palette


def _color(value: Any) -> Color:
    red, green, blue = (int(v) for v in value[:3])
    return red, green, blue
