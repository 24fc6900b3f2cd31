"""A camera for tests: a bright textured square that moves over grey texture, in real time, and stops when told to."""

from __future__ import annotations

import threading
import time
from fractions import Fraction

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import CliprlError
from cliprl.pipeline import Frame, StreamInfo
from cliprl.pipeline.core.frame import allocate_planes
from cliprl.pipeline.core.interfaces import PlaneAllocator
from cliprl.pipeline.sources.base import FrameSource

HEIGHT, WIDTH, SQUARE = 360, 480, 90


def texture(height: int, width: int, low: int, high: int, seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, low, high, cv2.NORM_MINMAX), np.uint8)


BACKGROUND, TARGET = texture(HEIGHT, WIDTH, 40, 120, 1), texture(SQUARE, SQUARE, 190, 235, 2)


def place_of(index: int) -> tuple[int, int]:
    """The left and top edge of the target in frame `index`: it goes to and fro, 5 pixels a frame."""
    way = WIDTH - SQUARE - 20
    along = 5 * index % (2 * way)
    return 10 + min(along, 2 * way - along), 60 + round(40 * np.sin(index / 20))


class TestCamera(FrameSource):
    """`frames` frames at `rate` a second (None: without end). It gives none while `silent` is set, and breaks on `broken`."""

    __test__ = False

    def __init__(self, frames: int | None = None, *, rate: int = 25, live: bool = True) -> None:
        super().__init__(StreamInfo("camera", HEIGHT, WIDTH, Fraction(1, rate), Fraction(rate), live=live))
        self.given: list[int] = []
        self.silent, self.broken = threading.Event(), threading.Event()
        self._frames, self._rate = frames, rate
        self._next, self._started = 0, time.monotonic()

    def read(self, allocate: PlaneAllocator = allocate_planes) -> Frame | None:
        return self._read(allocate)

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        while self.silent.is_set() and not self.broken.is_set():
            time.sleep(0.01)
            self._started = time.monotonic() - self._next / self._rate
        if self.broken.is_set():
            raise CliprlError("camera: the cable was pulled")
        if self._next == self._frames or self.closed:
            return None
        if self.info.live:
            time.sleep(max(self._started + self._next / self._rate - time.monotonic(), 0))
        index, self._next = self._next, self._next + 1
        luma, chroma = allocate(HEIGHT, WIDTH)
        x, y = place_of(index)
        luma[:], chroma[:] = BACKGROUND, 128
        luma[y : y + SQUARE, x : x + SQUARE] = TARGET
        luma[:8, : 8 * 24] = np.repeat([16 + 130 * (index >> bit & 1) for bit in range(24)], 8)
        self.given.append(index)
        return Frame(luma, chroma, index, self.info.time_base, index)


def number_in(luma: NDArray[np.uint8]) -> int:
    """The frame's number, from the bars in its corner."""
    return sum(1 << bit for bit in range(24) if luma[4, 8 * bit + 4] > 80)
