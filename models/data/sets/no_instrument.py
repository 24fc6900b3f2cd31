"""Videos and images without instruments: every pixel called instrument is a false alarm."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.image_mask_dataset import LabelledDataset, natural_order
from cliprl.models.data.io import IMAGE_SUFFIXES, files_below, read_image, read_video
from cliprl.models.data.label_mapping import UNION_CLASSES
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import Image, Sample


@register_dataset(
    "empty",
    "a video without instruments, for false alarms",
    options={"every": "take each N-th frame"},
    path_kind="file",
    named_by_path=True,
    no_instrument=True,
)
class NoInstrumentVideo(LabelledDataset):
    """Every `every`-th frame of a video file, labeled "not-instrument" throughout. It is decoded on first access."""

    classes: tuple[ClassSpec, ...] = UNION_CLASSES

    def __init__(self, path: Path, every: int | str = 1) -> None:
        """Raises UsageError if `every`, a number or its digits, is not at least 1."""
        if not str(every).isdecimal() or not int(every):
            raise UsageError(f"every is '{every}': give every=N to take each N-th frame")
        self.path, self.name, self.every = path, path.stem, int(every)

    @cached_property
    def _frames(self) -> list[Image]:
        return read_video(self.path, self.every)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        image = self._frames[index]
        return Sample(image, np.zeros(image.shape[:2], np.uint8), self.name)

    def sequence(self, index: int) -> str:
        """Return the only sequence: the video."""
        return self.name


# Sequences that a folder without sub-folders is divided into.
PARTS = 5


@register_dataset(
    "stills", "unrelated images without instruments, for false alarms", named_by_path=True, no_instrument=True
)
class NoInstrumentStills:
    """The images of a folder, labeled "not-instrument" throughout; each is its own clip.

    A sub-folder is a sequence. Without sub-folders, the images in the order of their names are divided into five sequences
    of equal length, "part1" to "part5", so that near copies stay on one side of a split.
    """

    classes: tuple[ClassSpec, ...] = UNION_CLASSES

    def __init__(self, folder: Path) -> None:
        """Raise UsageError if the folder holds no images."""
        self.name = folder.resolve().name
        self._files = sorted(files_below(folder), key=natural_order)
        if not self._files:
            raise UsageError(f"no images in '{folder}': it must hold {', '.join(IMAGE_SUFFIXES)} files")
        parents = [path.parent.name for path in self._files]
        flat = len(set(parents)) == 1
        count = len(self._files)
        self._sequences = [f"part{n * PARTS // count + 1}" for n in range(count)] if flat else parents

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        image = read_image(self._files[index])
        return Sample(image, np.zeros(image.shape[:2], np.uint8), self.sequence(index))

    def sequence(self, index: int) -> str:
        """Return the sub-folder of an image, or its fifth of the folder."""
        return self._sequences[index]

    def clip(self, index: int) -> str:
        """Return the file of an image: no image follows another."""
        return str(self._files[index])

    def image_file(self, index: int) -> Path:
        """Return the file of an image."""
        return self._files[index]
