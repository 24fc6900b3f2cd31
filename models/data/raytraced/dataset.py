"""Ray-traced scenes as a data set, in the twelve classes of the EndoVis 2018 scene challenge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.raytraced.cache import (
    CACHE_LAYOUT,
    RenderSettings,
    read_cached_array,
    read_kinds,
    read_settings,
    scene_path,
    scene_seeds,
)
from cliprl.models.data.raytraced.instruments import SHAFT_PART, TIP_PART, WRIST_PART
from cliprl.models.data.raytraced.objects import CLIP_LABEL, NEEDLE_LABEL, NO_LABEL, THREAD_LABEL
from cliprl.models.data.sample import Image, Sample
from cliprl.pipeline.synthetic import SCENE_CLASSES

NAME = "raytraced"
# Which class each label of a scene is.
CLASS_NAMES: Mapping[int, str] = {
    NO_LABEL: "background-tissue",
    SHAFT_PART: "instrument-shaft",
    TIP_PART: "instrument-clasper",
    WRIST_PART: "instrument-wrist",
    CLIP_LABEL: "clamps",
    THREAD_LABEL: "thread",
    NEEDLE_LABEL: "suturing-needle",
}
# The kind of instrument that is a class as a whole.
SUCTION_KIND = "suction"
_NUMBERS = {spec.name: number for number, spec in enumerate(SCENE_CLASSES)}
_TABLE = np.zeros(256, np.uint8)
_TABLE[list(CLASS_NAMES)] = [_NUMBERS[name] for name in CLASS_NAMES.values()]


class RaytracedScenes(LabelledDataset):
    """Scenes of a folder with exact labels by part. Two frames of a scene are consecutive; each scene is a sequence.

    A suction instrument is labeled "suction-instrument" as a whole, or by its parts where `whole_suction` is false.
    Distractors (strips of tissue, swabs, gloves, text) are background.
    """

    name = NAME
    classes: tuple[ClassSpec, ...] = SCENE_CLASSES

    def __init__(self, folder: Path, seeds: range | None = None, whole_suction: bool = True) -> None:
        """Take the finished scenes of `folder`, or of them those in `seeds`. Raises UsageError where there is none."""
        self.folder, self.whole_suction = folder, whole_suction
        self.settings: RenderSettings = read_settings(folder)
        there = [seed for seed in scene_seeds(folder) if seeds is None or seed in seeds]
        if not there:
            which = f" with seeds {seeds.start}-{seeds.stop - 1}" if seeds is not None else ""
            raise UsageError(f"no ray-traced scenes{which} in '{folder}': it must hold {CACHE_LAYOUT}")
        self._frames = [(seed, frame) for seed in there for frame in range(self.settings.frames(seed))]

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Sample:
        path, frame = self._place(index)
        labels = self._labels(path, frame)
        labels[read_cached_array(path, f"covered{frame}") > 0] = 0
        return Sample(read_cached_array(path, f"image{frame}"), labels, self.sequence(index))

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample: its scene."""
        return f"scene {self._frames[index][0]:06d}"

    def instances(self, index: int) -> Image:
        """Return the number of the instrument at each pixel, uint8 (H, W); 0 where there is none."""
        path, frame = self._place(index)
        return np.where(
            read_cached_array(path, f"covered{frame}") > 0, 0, read_cached_array(path, f"instances{frame}")
        ).astype(np.uint8)

    def kinds(self, index: int) -> list[str]:
        """Return the kinds of a sample's instruments, that of instance 1 first."""
        return read_kinds(self._place(index)[0])

    def instruments(self, index: int) -> tuple[Image, Image]:
        """Return the instruments alone: RGBA uint8 (H, W, 4) and labels uint8 (H, W)."""
        path, frame = self._place(index)
        labels = np.where(read_cached_array(path, f"instances{frame}") > 0, self._labels(path, frame), 0)
        return read_cached_array(path, f"layer{frame}"), labels.astype(np.uint8)

    def _place(self, index: int) -> tuple[Path, int]:
        seed, frame = self._frames[index]
        return scene_path(self.folder, seed), frame

    def _labels(self, path: Path, frame: int) -> Image:
        """Return the classes of all that is in view, also where something covers it."""
        classes = _TABLE[read_cached_array(path, f"labels{frame}")]
        if self.whole_suction and SUCTION_KIND in (kinds := read_kinds(path)):
            numbers = [number for number, kind in enumerate(kinds, 1) if kind == SUCTION_KIND]
            classes[np.isin(read_cached_array(path, f"instances{frame}"), numbers)] = _NUMBERS["suction-instrument"]
        return classes
