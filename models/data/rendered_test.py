"""Rendered scenes that are only ever scored: the twelve classes of EndoVis 2018, on seeds far from those of any recipe."""

from __future__ import annotations

from pathlib import Path

from cliprl.models.data.rendered import RenderedScenes, SceneSet
from cliprl.models.data.sample import Sample
from cliprl.pipeline.scene import SCENE_CLASSES

SCENES = SceneSet(first=900_000, count=24, frames=10, height=384, width=480)
WORKERS = 2


class RenderedTest:
    """`folder` keeps the scenes, which are drawn when they are first asked for. Each scene is a sequence of video."""

    name = "rendered"
    classes = SCENE_CLASSES

    def __init__(self, folder: Path, scenes: SceneSet = SCENES) -> None:
        self._first, self._frames = scenes.first, scenes.frames
        self._scenes = RenderedScenes(scenes, folder, WORKERS, lambda done, total: None)

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Sample:
        return self._scenes[index]

    def sequence(self, index: int) -> str:
        """The sequence of a sample."""
        return f"scene {self._first + index // self._frames:06d}"

    def clip(self, index: int) -> str:
        """The clip of a sample: its scene."""
        return self.sequence(index)
