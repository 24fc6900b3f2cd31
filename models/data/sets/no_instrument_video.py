"""A video in which no instrument is ever seen: every pixel called one is a false alarm."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from cliprl.engines import ClassSpec
from cliprl.models.data.io import read_video
from cliprl.models.data.label_mapping import UNION
from cliprl.models.data.sample import Image, Sample


class NoInstrumentVideo:
    """Every `every`-th frame of a video file, labelled "not-instrument" throughout. It is decoded when first asked for."""

    classes: tuple[ClassSpec, ...] = UNION

    def __init__(self, path: Path, every: int = 1) -> None:
        self.path, self.name, self.every = path, path.stem, every

    @cached_property
    def _frames(self) -> list[Image]:
        return read_video(self.path, self.every)

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        image = self._frames[index]
        return Sample(image, np.zeros(image.shape[:2], np.uint8), self.name)

    def sequence(self, index: int) -> str:
        """The one sequence of it."""
        return self.name

    def clip(self, index: int) -> str:
        """The clip: the video."""
        return self.name
