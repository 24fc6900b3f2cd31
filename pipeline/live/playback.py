"""Playback of a file for viewers: it can wait for the first viewer, be replayed, and be sought in."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import PlaneAllocator, Source
from cliprl.pipeline.sources import VideoSource, open_source
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.demo import DemoSource

# Tolerance in seconds when frame times are compared with a position: times are rounded.
_TOLERANCE = 0.001
# A seek to the end goes this many frames before it.
_LAST_FRAMES = 1.5


class Playback(FrameSource):
    """A source that reads a file with seeks, and shifts frame times so that they ascend across them.

    `source` is the open file; `open_at` reopens it at a position in seconds. `repeats`: at the end it waits for a seek, and
    `read` returns None only after `close`. `is_waiting`: the first frame waits for a viewer. `at_end`: all frames have been read;
    `finished`: and displayed, upon which `on_end` is called; `played`: it has finished at least once. `jumps` counts replays
    and seeks; `position` is that of the last frame in seconds.
    """

    def __init__(
        self, source: Source, open_at: Callable[[float], Source], *, repeats: bool = True, waits: bool = False
    ) -> None:
        super().__init__(source.info)
        self.repeats, self.on_end = repeats, _ignore_end
        self.position = self._furthest = 0.0
        self.at_end = self.finished = self.played = False
        self._source, self._open_at = source, open_at
        self._target, self._first, self._shift, self._end = 0.0, None, 0, 0
        self._requested: float | None = None
        self._changed = threading.Condition()
        self.is_waiting = waits

    _first: int | None

    @property
    def duration(self) -> float | None:
        """The duration in seconds; None if it is unknown, or the file can't be sought in."""
        return self.info.seconds if self.repeats else None

    def release(self) -> None:
        """Start playing, because there is a viewer."""
        with self._changed:
            self.is_waiting = False
            self._changed.notify_all()

    def seek(self, seconds: float) -> None:
        """Continue at `seconds` after the file's start; in a file of unknown length, at most at the furthest position read.

        Raises UsageError if that is not possible.
        """
        if not self.repeats:
            raise UsageError("this input can't be sought in: it is live, or being written to an output")
        end = self._furthest if self.info.seconds is None else self.info.seconds
        if not 0 <= seconds <= end:
            raise UsageError(f"{seconds:g} s is outside of the file: give 0 to {end:g}")
        with self._changed:
            self._requested, self.is_waiting = seconds, False
            self._changed.notify_all()

    def finish(self) -> None:
        """Note that all frames read have been displayed."""
        with self._changed:
            ends = self.at_end and not self.finished and self._requested is None
            self.finished = self.finished or ends
            self.played = self.played or ends
        if ends:
            self.on_end()

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        """Return the next frame, later than the last; None after `close`, and at the end if it does not repeat."""
        self._wait(lambda: not self.is_waiting)
        while not self.closed:
            self._jump()
            frame = self._source.read(allocate)
            self.damaged = max(self.damaged, self._source.damaged)
            if frame is None and not self._wait_at_end():
                return None
            if frame is not None and self._place(frame):
                return frame
        return None

    def _jump(self) -> None:
        """Reopen the file at the requested position, if there is one."""
        with self._changed:
            target, self._requested = self._requested, None
        if target is not None:
            self._source.close()
            if self.info.seconds is not None:
                last = self.info.seconds - _LAST_FRAMES * float(1 / (self.info.rate or 25))
                target = min(target, max(last, 0.0))
            self._source = self._open_at(target)
            self._target, self._first = target, None
            self.jumps, self.at_end, self.finished = self.jumps + 1, False, False

    def _place(self, frame: Frame) -> bool:
        """Shift a frame's time after the last frame's. Return False for a frame before the requested position."""
        begins = self._first is None
        first = self._first = frame.pts if self._first is None else self._first
        self.position = self._source.origin + float((frame.pts - first) * frame.time_base)
        self._furthest, frame.position = max(self._furthest, self.position), self.position
        if self.position < self._target - _TOLERANCE:
            return False
        if self.jumps and (begins or self._target):
            self._shift = self._end - frame.pts
        self._target = 0.0
        frame.pts += self._shift
        self._end = frame.pts + max(frame.duration, 1)
        return True

    def _wait_at_end(self) -> bool:
        """Wait for a seek at the end. Return False if there will be none."""
        if not self.repeats:
            return False
        self.at_end = True
        self._wait(lambda: self._requested is not None)
        return not self.closed

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.closed or ready())

    def close(self) -> None:
        """End waiting and reading. Further calls have no effect."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def __exit__(self, *_: object) -> None:
        self.close()
        self._source.close()


def _ignore_end() -> None:
    """Do nothing at the end."""


def open_file_at(name: str, seconds: float, stream: int | None = None) -> Source:
    """Open a file at the last key frame before `seconds`, the demo scene at its frame there; another source at its start."""
    if seconds > 0 and os.path.isfile(name):
        try:
            return VideoSource(os.path.abspath(name), stream=stream, start=seconds)
        except CliprlError:
            pass  # it is decoded from its start
    source = open_source(name, stream=stream)
    if isinstance(source, DemoSource):
        source.start_at(seconds)
    return source
