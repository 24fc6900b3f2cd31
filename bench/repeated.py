"""A clip that is played again and again: without end and as fast as it is asked for, or at a camera's pace."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from cliprl.pipeline import Frame, open_source
from cliprl.pipeline.protocols import PlaneAllocator
from cliprl.pipeline.sources import FrameSource
from cliprl.pipeline.sources.timing import DEFAULT_RATE

# Frames that a camera's driver keeps for a reader who is late; older ones are lost.
BACKLOG = 4


class RepeatedSource(FrameSource):
    """A clip without end, its frames numbered and timed anew at `rate` (None: the clip's own)."""

    def __init__(self, clip: str | Path, rate: Fraction | int | None = None, *, live: bool = False) -> None:
        self._clip, self._inner = clip, open_source(clip)
        self.rate = Fraction(rate or self._inner.info.rate or DEFAULT_RATE)
        self._index = 0
        info = replace(self._inner.info, rate=self.rate, time_base=1 / self.rate, frames=None, seconds=None)
        super().__init__(replace(info, live=live, passthrough=None))

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        frame = self._inner.read(allocate)
        while frame is None:
            self._inner.close()
            self._inner = open_source(self._clip)
            gc.collect()  # what a closed clip holds is in cycles; left alone, it would look like a leak of the stream
            frame = self._inner.read(allocate)
        frame.index = frame.pts = self._index
        frame.duration, frame.time_base = 1, self.info.time_base
        self._index += 1
        return frame

    def close(self) -> None:
        """Release the clip."""
        self._inner.close()
        super().close()


class PacedSource(RepeatedSource):
    """A repeated clip that comes as a camera's frames would: live, at a fixed rate, never waiting for a reader; `last` frames.

    Each frame bears `times["due"]`, when it arrived, and `durations["read"]`, how long decoding took. `missed` counts the
    frames that a driver would have lost, because nobody had asked for them in time.
    """

    def __init__(self, clip: str | Path, rate: Fraction | int, last: int) -> None:
        super().__init__(clip, rate, live=True)
        self.missed = 0
        self._last = last
        self._start = math.nan

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        due = self._wait()
        if self._index >= self._last:
            return None
        start = time.monotonic()
        frame = super()._read(allocate)
        if frame is not None:
            frame.times["due"], frame.durations["read"] = due, time.monotonic() - start
        return frame

    def due(self, index: int) -> float:
        """When a frame arrives or arrived, in `time.monotonic()`; NaN before the first was asked for."""
        return self._start + float(index / self.rate)

    def _wait(self) -> float:
        """Sleep until the next frame is due, or skip to what the driver still has; returns when that was due."""
        now = time.monotonic()
        if math.isnan(self._start):
            self._start = now
        late = min(int((now - self._start) * self.rate) - BACKLOG, self._last) - self._index
        if late > 0:
            self.missed += late
            self._index += late
        due = self.due(self._index)
        time.sleep(max(0.0, due - now))
        return due
