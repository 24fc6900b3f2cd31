"""EndoVis 2015: two robotic videos on ex-vivo tissue (D1, D2), and two operations in single frames (OP1, OP3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.models.data.image_mask_dataset import (
    ImageMaskDataset,
    ImageMaskPair,
    LabelledDataset,
    SelectedFrames,
    natural_order,
    pair_by_name,
)
from cliprl.models.data.io import read_video
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import Image, Sample
from cliprl.models.data.splits import Split

LAYOUT = "robotic/D*/video.avi with labels.npz beside it, and rigid/OP*/Raw with rigid/OP*/Masks"
ENDOVIS2015_CLASSES: tuple[ClassSpec, ...] = (
    ClassSpec("background", (0, 0, 0), "background", ("background tissue in a surgical video",)),
    ClassSpec("head", (0, 255, 255), "instrument", ("the tip of a surgical instrument",)),
    ClassSpec("shaft", (0, 255, 0), "instrument", ("the shaft of a surgical instrument",)),
)
# The manipulator (70) is the head.
RIGID_VALUES = {0: 0, 70: 1, 160: 2}


@dataclass(frozen=True, slots=True)
class Video:
    """A decoded video, uint8 (H, W, 3) RGB a frame, with its labels and, if there are any, ids (N, H, W)."""

    frames: list[Image]
    labels: NDArray[np.uint8]
    ids: NDArray[np.uint8] | None


class RigidFrames(ImageMaskDataset):
    """Single frames of operations: `folder` holds OP1/Raw/img_NN_raw.png, OP1/Masks/img_NN_class.png, ..."""

    name = "endovis2015"
    classes = ENDOVIS2015_CLASSES
    values = RIGID_VALUES

    def __init__(self, folder: Path) -> None:
        pairs: list[ImageMaskPair] = []
        for raw in sorted(folder.glob("*/Raw"), key=natural_order):
            name, masks = raw.parent.name, (raw.parent / "Masks").glob("*_class.png")
            for image, mask in pair_by_name(raw.glob("*_raw.png"), masks, "_raw", "_class"):
                pairs.append(ImageMaskPair(image, (mask,), name, f"{name} {image.stem}"))
        super().__init__(folder, pairs, LAYOUT)


class RoboticVideos(LabelledDataset):
    """Fully labeled videos: `folder` holds D1/video.avi and D1/labels.npz (`parts`), ...

    A video is decoded on first access; the last two are cached (0.6 GB each).
    """

    name = "endovis2015"
    classes = ENDOVIS2015_CLASSES

    def __init__(self, folder: Path) -> None:
        self._places: list[tuple[Path, int]] = []
        for video in sorted(folder.glob("*/video.avi"), key=natural_order):
            self._places += [(video.parent, i) for i in range(_count(video.parent))]
        if not self._places:
            raise UsageError(f"no {self.name} videos in '{folder}': it must hold {LAYOUT}")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        folder, frame = self._places[index]
        video = _read(folder)
        return Sample(video.frames[frame], video.labels[frame], folder.name)

    def instance_ids(self, index: int) -> Image | None:
        """Return the instrument at each pixel, uint8 (H, W), 0 for none."""
        folder, frame = self._places[index]
        ids = _read(folder).ids
        return None if ids is None else ids[frame]

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample."""
        return self._places[index][0].name


@register_dataset(
    "endovis2015",
    "EndoVis 2015, heads and shafts of rigid and robotic instruments",
    splits={"robotic": Split(("D1",), ("D2",)), "both": Split(("D1", "OP1"), ("D2", "OP3"))},
)
class EndoVis2015(SelectedFrames):
    """Robotic and rigid instruments: background, head, shaft. `folder` holds robotic/ or rigid/ or both."""

    def __init__(self, folder: Path) -> None:
        kinds = (("robotic", RoboticVideos), ("rigid", RigidFrames))
        parts = [kind(folder / name) for name, kind in kinds if (folder / name).is_dir()]
        if not parts:
            raise UsageError(f"no endovis2015 frames in '{folder}': it must hold {LAYOUT}")
        super().__init__([(part, i) for part in parts for i in range(len(part))])


def _count(folder: Path) -> int:
    """Return the number of masks, from the header of the file."""
    path = folder / "labels.npz"
    if not path.is_file():
        raise CliprlError(f"{folder / 'video.avi'} has no labels.npz beside it: copy the whole set again")
    try:
        with np.load(path) as data, data.zip.open("parts.npy") as header:
            np.lib.format.read_magic(header)
            shape, _, _ = np.lib.format.read_array_header_1_0(header)
    except (OSError, ValueError, KeyError) as error:
        raise CliprlError(f"{path} holds no array 'parts' ({error}): copy it again") from error
    return int(shape[0])


@lru_cache(maxsize=2)
def _read(folder: Path) -> Video:
    frames = read_video(folder / "video.avi")
    with np.load(folder / "labels.npz") as data:
        labels = data["parts"].astype(np.uint8)
        ids = data["instance"].astype(np.uint8) if "instance" in data else None
    if labels.shape != (len(frames), *frames[0].shape[:2]):
        found = f"{len(frames)} frames of {frames[0].shape[1]}x{frames[0].shape[0]}"
        raise CliprlError(f"{folder} has {found}, and masks of shape {labels.shape}: copy both again")
    if labels.max() >= len(ENDOVIS2015_CLASSES):
        raise CliprlError(
            f"{folder / 'labels.npz'} holds part {labels.max()}: parts are 0..{len(ENDOVIS2015_CLASSES) - 1}"
        )
    if ids is not None and ids.shape != labels.shape:
        raise CliprlError(f"{folder / 'labels.npz'} has parts and instances of different shapes: copy it again")
    return Video(frames, labels, ids)
