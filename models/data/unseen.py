"""Real frames that are only ever scored, never trained on: EndoVis 2015 and video without instruments."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from cliprl.engines import CliprlError, UsageError
from cliprl.models.data.sample import INSTRUMENT, NOT_INSTRUMENT, Image, Sample

BACKGROUND = 0


def _binary(mask: Image) -> Image:
    return np.where(mask != BACKGROUND, INSTRUMENT, NOT_INSTRUMENT).astype(np.uint8)


def _frames(path: Path, every: int) -> list[Image]:
    """Every n-th frame of a video, uint8 (H, W, 3) RGB."""
    try:
        with av.open(str(path)) as container:
            frames = enumerate(container.decode(video=0))
            return [f.to_ndarray(format="rgb24").astype(np.uint8) for i, f in frames if i % every == 0]
    except (OSError, av.FFmpegError) as error:
        raise UsageError(f"'{path}' can't be read as video ({error})") from error


class RoboticVideo:
    """EndoVis 2015 robotic: `folder` holds video.avi and labels.npz (`parts`, one mask a frame)."""

    def __init__(self, folder: Path, every: int = 1) -> None:
        self.name = folder.name
        self.images = _frames(folder / "video.avi", every)
        with np.load(folder / "labels.npz") as data:
            self.masks = data["parts"][::every].astype(np.uint8)
        if len(self.masks) != len(self.images):
            raise CliprlError(f"{folder} has {len(self.images)} frames and {len(self.masks)} masks: copy it again")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self.images[index], _binary(self.masks[index]), self.name)


class RigidImages:
    """EndoVis 2015 rigid: `folder` holds Raw/img_NN_raw.png and Masks/img_NN_class.png; every picture is its own sequence."""

    def __init__(self, folder: Path) -> None:
        self.name, self.folder = folder.name, folder
        self.stems = sorted(p.name.removesuffix("_raw.png") for p in (folder / "Raw").glob("*_raw.png"))
        if not self.stems:
            raise UsageError(f"no frames in '{folder}': it must hold Raw/*_raw.png and Masks/*_class.png")

    def __len__(self) -> int:
        return len(self.stems)

    def __getitem__(self, index: int) -> Sample:
        stem = self.stems[index]
        image = cv2.imread(str(self.folder / "Raw" / f"{stem}_raw.png"))
        mask = cv2.imread(str(self.folder / "Masks" / f"{stem}_class.png"), cv2.IMREAD_UNCHANGED)
        if image is None or mask is None:
            raise CliprlError(f"{self.folder}: picture or mask of {stem} is missing: copy the set again")
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8)
        return Sample(rgb, _binary(mask.astype(np.uint8)), f"{self.name} {stem}")


class EmptyVideo:
    """A video in which no instrument is ever seen: every pixel called one is a false alarm."""

    def __init__(self, path: Path, every: int = 1) -> None:
        self.name = path.stem
        self.images = _frames(path, every)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        return Sample(image, np.full(image.shape[:2], NOT_INSTRUMENT, np.uint8), self.name)
