"""The EndoVis 2017 robotic instrument challenge: binary, parts and types; as published, or as the TernausNet copy of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.models.data.image_mask_dataset import ImageMaskDataset, ImageMaskPair, natural_order, pair_by_name
from cliprl.models.data.io import check_size, labels_from_values, read_image, read_mask
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import Image
from cliprl.models.data.splits import Split

LAYOUT = (
    "instrument_dataset_N/left_frames with ground_truth/<Instrument>_labels (the release), "
    "or instrument_dataset_N/images with binary_masks, parts_masks and instruments_masks (the TernausNet copy)"
)
# The camera's image inside the frame: left, top, width, height.
CROP = (320, 28, 1280, 1024)

BACKGROUND_CLASS = ClassSpec("background", (0, 0, 0), "background", ("background tissue in a surgical video",))
BINARY: tuple[ClassSpec, ...] = (
    BACKGROUND_CLASS,
    ClassSpec("instrument", (0, 255, 0), "instrument", ("a surgical instrument",)),
)
PART_CLASSES: tuple[ClassSpec, ...] = (
    BACKGROUND_CLASS,
    ClassSpec("shaft", (0, 255, 0), "instrument", ("the shaft of a surgical instrument",)),
    ClassSpec("wrist", (125, 255, 12), "instrument", ("the wrist of a robotic surgical instrument",)),
    ClassSpec("clasper", (0, 255, 255), "instrument", ("the clasper of a surgical instrument",)),
)
TYPE_CLASSES: tuple[ClassSpec, ...] = (
    BACKGROUND_CLASS,
    ClassSpec("bipolar-forceps", (0, 255, 0), "instrument", ("bipolar forceps",)),
    ClassSpec("prograsp-forceps", (0, 255, 255), "instrument", ("prograsp forceps",)),
    ClassSpec("large-needle-driver", (125, 255, 12), "instrument", ("a large needle driver",)),
    ClassSpec("vessel-sealer", (255, 55, 0), "instrument", ("a vessel sealer",)),
    ClassSpec("grasping-retractor", (24, 55, 125), "instrument", ("a grasping retractor",)),
    ClassSpec("monopolar-curved-scissors", (187, 155, 25), "instrument", ("monopolar curved scissors",)),
    ClassSpec("other", (255, 255, 125), "instrument", ("another surgical instrument", "an ultrasound probe")),
)
TASKS: Mapping[str, tuple[ClassSpec, ...]] = {"binary": BINARY, "parts": PART_CLASSES, "types": TYPE_CLASSES}
PART_VALUES = {0: 0, 10: 1, 20: 2, 30: 3}
# Types by a part of the ground-truth folder's name: Left_Prograsp_Forceps_labels, Maryland_Bipolar_Forceps_labels, ...
TYPE_NAMES = {
    "bipolar": 1,
    "prograsp": 2,
    "needle_driver": 3,
    "vessel_sealer": 4,
    "grasping_retractor": 5,
    "curved_scissors": 6,
    "other": 7,
}
OTHER = 7
# The TernausNet copy: the folder of each task's masks, and by how much the ids in them are multiplied.
COPY = {"binary": ("binary_masks", 255), "parts": ("parts_masks", 85), "types": ("instruments_masks", 32)}


# The test sequences of each fold of the published cross-validation.
FOLDS = ((1, 3), (2, 5), (4, 8), (6, 7))


@register_dataset(
    "endovis2017",
    "EndoVis 2017, robotic instruments",
    options={"task": "the classes: binary, parts (default) or types"},
    splits={f"fold{i}": Split.of_numbers("instrument_dataset_", range(1, 9), test) for i, test in enumerate(FOLDS)},
)
class EndoVis2017(ImageMaskDataset):
    """`folder` holds instrument_dataset_1 to _8; `task` is "binary", "parts" or "types".

    Instruments other than the robot's ("Other") are a type, but neither part nor binary foreground, as in the challenge.
    """

    name = "endovis2017"

    def __init__(self, folder: Path, task: str = "parts") -> None:
        if task not in TASKS:
            raise UsageError(f"endovis2017 has no task '{task}': one of {', '.join(TASKS)}")
        self.task, self.classes = task, TASKS[task]
        pairs: list[ImageMaskPair] = []
        for root in sorted(folder.glob("**/instrument_dataset_*"), key=natural_order):
            pairs += _copied(root, task) if (root / "images").is_dir() else _published(root)
        super().__init__(folder, pairs, LAYOUT)

    def image(self, pair: ImageMaskPair) -> Image:
        """Return the camera image, cropped if the frame has its border."""
        return cropped(read_image(pair.image))

    def labels(self, pair: ImageMaskPair) -> Image:
        """Return the classes of the task."""
        mask = pair.masks[0]
        if pair.image.parent.name == "images":
            factor = COPY[self.task][1]
            return labels_from_values(read_mask(mask), {factor * i: i for i in range(len(self.classes))}, mask)
        labels = self._painted(mask)
        for other in pair.masks[1:]:
            more = self._painted(other)
            check_size(labels, more, mask, other)
            labels = np.where(more > 0, more, labels)
        return cropped(labels)

    def _painted(self, mask: Path) -> Image:
        """Return the labels of one instrument's mask for the task."""
        kind, values = type_of(mask.parent.name), read_mask(mask)
        if kind == OTHER:
            gray = values.max(axis=2) if values.ndim == 3 else values
            return np.where(gray > 0, np.uint8(OTHER if self.task == "types" else 0), np.uint8(0))
        parts = labels_from_values(values, PART_VALUES, mask)
        if self.task == "parts":
            return parts
        return np.where(parts > 0, np.uint8(kind if self.task == "types" else 1), np.uint8(0))


def cropped(image: Image) -> Image:
    """Crop the camera image out of a 1920x1080 frame; an image of the camera's size is returned unchanged."""
    left, top, width, height = CROP
    return image[top : top + height, left : left + width] if image.shape[1] > width else image


def type_of(folder: str) -> int:
    """Return the instrument type of a ground-truth folder. Raises CliprlError for an unknown name."""
    for part, number in TYPE_NAMES.items():
        if part in folder.lower():
            return number
    raise CliprlError(
        f"the ground-truth folder '{folder}' names no instrument: its name must contain one of {', '.join(TYPE_NAMES)}"
    )


def _published(root: Path) -> list[ImageMaskPair]:
    # macOS puts a file "._NAME" beside a folder or file NAME.
    folders = sorted(place for place in (root / "ground_truth").glob("*_labels") if place.is_dir())
    images = [image for image in (root / "left_frames").glob("*.png") if not image.name.startswith(".")]
    if images and not folders:
        raise CliprlError(
            f"{root} has frames and no ground_truth/*_labels: copy the whole set again, or move sequences without labels away"
        )
    columns = [pair_by_name(images, folder.glob("*.png")) for folder in folders]
    return [
        ImageMaskPair(row[0][0], tuple(mask for _, mask in row), root.name, root.name)
        for row in zip(*columns, strict=True)
    ]


def _copied(root: Path, task: str) -> list[ImageMaskPair]:
    images = [p for p in (root / "images").iterdir() if p.suffix in (".jpg", ".png")]
    found = pair_by_name(images, (root / COPY[task][0]).glob("*.png"))
    return [ImageMaskPair(image, (mask,), root.name, root.name) for image, mask in found]
