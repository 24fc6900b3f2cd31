"""The one frame format: two NV12 planes, with the time and colour that belong to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from typing import ClassVar

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

    name: relative to the folder that holds all files of the list, with "/" between folders. stem: a name without folders and,
    where that is unique in the list, without suffix; for files that belong to this one.
    """

    name: str
    stem: str


@dataclass(slots=True)
class Frame:
    """A picture on its way through the pipeline. It is never re-created: stages blend into its planes and add to its times.

    luma: uint8 (H, W). chroma: uint8 (ceil(H/2), ceil(W/2), 2), Cb then Cr.
    pts: presentation time in units of `time_base` seconds; `duration` likewise, 0 where unknown.
    rotation: degrees counter-clockwise by which a player turns the picture for display (0, 90, 180, 270).
    file: the image file it was read from; None for a frame of a video or a camera.
    times: `time.monotonic()` at the end of each stage passed, in seconds, by name ("captured", "encode", "written", ...).
    durations: how long each stage worked on it, in seconds, waiting not included. threads: the name of the one that did.
    """

    # Entered with the name of each stage while it is worked on, on whatever thread: a profiler's marks (see `Trace`).
    ranges: ClassVar[Callable[[str], AbstractContextManager[object]]] = nullcontext

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
        """Lines of luma."""
        return len(self.luma)

    @property
    def width(self) -> int:
        """Samples a line of luma."""
        return int(self.luma.shape[1])

    @property
    def seconds(self) -> float:
        """Presentation time in seconds."""
        return float(self.pts * self.time_base)

    def mark(self, stage: str) -> None:
        """Note that the frame has just passed `stage`."""
        self.times[stage] = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the work of one stage on this frame."""
        start = time.monotonic()
        with Frame.ranges(name):
            yield
        self.mark(name)
        self.threads[name] = threading.current_thread().name
        self.durations[name] = self.times[name] - start

    def elapsed(self, start: str, end: str) -> float:
        """Seconds between two marked stages; NaN where one was not passed."""
        return self.times.get(end, float("nan")) - self.times.get(start, float("nan"))
