"""The frame format of the whole pipeline: two NV12 planes with their time, color and orientation."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.color import Color

Plane = NDArray[np.uint8]


def allocate_planes(height: int, width: int) -> tuple[Plane, Plane]:
    """Uninitialised NV12 planes: luma (H, W) and chroma (ceil(H/2), ceil(W/2), 2) with Cb before Cr."""
    return np.empty((height, width), np.uint8), np.empty(((height + 1) // 2, (width + 1) // 2, 2), np.uint8)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """The image file that a frame was read from.

    name: path relative to the folder that holds all files of the list, with "/" as separator. stem: base name for files that
    belong to this image; it has no folders, and no suffix where it is unique in the list without one.
    """

    name: str
    stem: str


@dataclass(slots=True)
class Frame:
    """One video frame. The stages of a stream blend into its planes and add to its times; they do not copy it.

    luma: uint8 (H, W). chroma: uint8 (ceil(H/2), ceil(W/2), 2), Cb then Cr.
    pts: presentation time in units of `time_base` seconds; `duration` likewise, 0 where unknown.
    rotation: counter-clockwise rotation for display, in degrees (0, 90, 180, 270).
    file: the image file it was read from; None for a frame of a video or a camera.
    times: `time.monotonic()` in seconds at the end of each completed stage, by name ("captured", "encode", "write", ...).
    durations: seconds that each stage worked on the frame, waiting excluded. threads: name of the thread that did the work.
    """

    luma: Plane
    chroma: Plane
    pts: int
    time_base: Fraction
    index: int
    color: Color = field(default_factory=Color)
    duration: int = 0
    rotation: int = 0
    sample_aspect: Fraction | None = None
    interlaced: bool = False
    damaged: bool = False
    slot: int = -1
    file: ImageFile | None = None
    times: dict[str, float] = field(default_factory=dict)
    durations: dict[str, float] = field(default_factory=dict)
    threads: dict[str, str] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """Height of the luma plane in pixels."""
        return len(self.luma)

    @property
    def width(self) -> int:
        """Width of the luma plane in pixels."""
        return int(self.luma.shape[1])

    @property
    def seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def mark(self, stage: str) -> None:
        """Record that the frame has just completed `stage`."""
        self.times[stage] = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the work of one stage on this frame."""
        start = time.monotonic()
        yield
        self.mark(name)
        self.threads[name] = threading.current_thread().name
        self.durations[name] = self.times[name] - start

    def elapsed(self, start: str, end: str) -> float:
        """Return the seconds between two recorded stages; NaN if one is missing."""
        return self.times.get(end, float("nan")) - self.times.get(start, float("nan"))
