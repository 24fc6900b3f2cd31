"""A video without instruments: every pixel called instrument is a false alarm."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.io import read_video
from cliprl.models.data.label_mapping import UNION_CLASSES
from cliprl.models.data.registry import register_dataset
from cliprl.models.data.sample import Image, Sample


@register_dataset(
    "empty",
    "a video without instruments, for false alarms",
    options={"every": "take each N-th frame"},
    path_kind="file",
    no_instrument=True,
)
class NoInstrumentVideo:
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

    def clip(self, index: int) -> str:
        """Return the only clip: the video."""
        return self.name
