"""Timelines: the intervals of frames in which something was in view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

# Frames of the shortest interval that counts, and of the longest gap that does not end an interval.
SHORTEST, LONGEST_GAP = 3, 5


@dataclass(slots=True)
class Interval:
    """From the first to the last frame: indices, and presentation times in seconds."""

    first: int
    last: int
    start: float
    end: float
    frames: int = 1


@dataclass(slots=True)
class PresenceTimeline:
    """Intervals in order. Frames are added in order; memory grows with the number of intervals, not of frames.

    Gaps of up to `LONGEST_GAP` frames do not end an interval; one of fewer than `SHORTEST` frames is dropped.
    """

    _closed: list[Interval] = field(default_factory=list)
    _open: Interval | None = None

    def add(self, index: int, seconds: float, period: float) -> None:
        """Add a frame that lasts `period` seconds."""
        if self._open is not None and index - self._open.last <= LONGEST_GAP + 1:
            self._open.last, self._open.end = index, seconds + period
            self._open.frames += 1
            return
        self._close()
        self._open = Interval(index, index, seconds, seconds + period)

    def _close(self) -> None:
        if self._open is not None and self._open.frames >= SHORTEST:
            self._closed.append(self._open)
        self._open = None

    @property
    def intervals(self) -> list[Interval]:
        """The intervals so far, the last one up to now."""
        last = [self._open] if self._open is not None and self._open.frames >= SHORTEST else []
        return [*self._closed, *last]

    @property
    def seconds(self) -> float:
        """Total length in seconds."""
        return sum(interval.end - interval.start for interval in self.intervals)

    def entries(self) -> Iterator[tuple[str, int]]:
        """Yield ("entry", first frame) and ("exit", last frame) of each interval."""
        for interval in self.intervals:
            yield "entry", interval.first
            yield "exit", interval.last
