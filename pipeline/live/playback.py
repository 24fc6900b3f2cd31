"""A file as a viewer plays it: it waits for the first viewer, and can be replayed from any place."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Frame, allocate_planes
from cliprl.pipeline.core.interfaces import PlaneAllocator, Source, StreamInfo
from cliprl.pipeline.sources import VideoSource, open_source

# A frame this much before the wanted place is the wanted one: times are rounded.
_SLACK = 0.001
# The end of the file stands for so many frames before it.
_LAST_FRAMES = 1.5


class Playback:
    """Reads a file and goes on with its times at each jump, so that those who read it see one stream without end.

    `source` is the file, open already; `open_at` opens it so that it can be read from a place in seconds. `repeats`: at the
    end it waits for a jump, and `read` gives None only after `close`. `waits`: the first frame waits for a viewer.
    `resting`: all has been read; `finished`: and displayed, which calls `ended`; `played`: that has happened before.
    `jumps` counts replays and seeks so far, `position` is that of the last frame in seconds.
    """

    def __init__(
        self, source: Source, open_at: Callable[[float], Source], *, repeats: bool = True, waits: bool = False
    ) -> None:
        self.info: StreamInfo = source.info
        self.repeats, self.ended = repeats, _nothing
        self.damaged = self.jumps = 0
        self.position = self._furthest = 0.0
        self.resting = self.finished = self.played = False
        self._source, self._open_at = source, open_at
        self._target, self._first, self._shift, self._end = 0.0, None, 0, 0
        self._wanted: float | None = None
        self._changed = threading.Condition()
        self._waits, self._closed = waits, False

    _first: int | None

    @property
    def waits(self) -> bool:
        """Whether the first frame still waits for a viewer."""
        return self._waits

    @property
    def duration(self) -> float | None:
        """Seconds that the file lasts, where it can be sought in; None otherwise."""
        return self.info.seconds if self.repeats else None

    def release(self) -> None:
        """Somebody watches: play."""
        with self._changed:
            self._waits = False
            self._changed.notify_all()

    def seek(self, seconds: float) -> None:
        """Go on from `seconds` after the file's beginning, of a file of unknown length at most from as far as it was read.

        Raises UsageError where it can't.
        """
        if not self.repeats:
            raise UsageError("this input can't be sought in: it is live, or being written to an output")
        end = self._furthest if self.info.seconds is None else self.info.seconds
        if not 0 <= seconds <= end:
            raise UsageError(f"{seconds:g} s is outside of the file: give 0 to {end:g}")
        with self._changed:
            self._wanted, self._waits = seconds, False
            self._changed.notify_all()

    def finish(self) -> None:
        """All that was read has been displayed."""
        with self._changed:
            ends = self.resting and not self.finished and self._wanted is None
            self.finished = self.finished or ends
            self.played = self.played or ends
        if ends:
            self.ended()

    def read(self, allocate: PlaneAllocator = allocate_planes) -> Frame | None:
        """The next frame, its time after that of the last; None after `close`, and at the end where it does not repeat."""
        self._wait(lambda: not self._waits)
        while not self._closed:
            self._jump()
            frame = self._source.read(allocate)
            self.damaged = max(self.damaged, self._source.damaged)
            if frame is None and not self._rest():
                return None
            if frame is not None and self._place(frame):
                return frame
        return None

    def _jump(self) -> None:
        """Do the jump that is wanted, if any."""
        with self._changed:
            wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self._source.close()
            if self.info.seconds is not None:
                last = self.info.seconds - _LAST_FRAMES * float(1 / (self.info.rate or 25))
                wanted = min(wanted, max(last, 0.0))
            self._source = self._open_at(wanted)
            self._target, self._first = wanted, None
            self.jumps, self.resting, self.finished = self.jumps + 1, False, False

    def _place(self, frame: Frame) -> bool:
        """Move a frame's time behind that of the last. False for a frame before the wanted place."""
        begins = self._first is None
        first = self._first = frame.pts if self._first is None else self._first
        self.position = getattr(self._source, "origin", 0.0) + float((frame.pts - first) * frame.time_base)
        self._furthest = max(self._furthest, self.position)
        if self.position < self._target - _SLACK:
            return False
        if self.jumps and (begins or self._target):
            self._shift = self._end - frame.pts
        self._target = 0.0
        frame.pts += self._shift
        self._end = frame.pts + max(frame.duration, 1)
        return True

    def _rest(self) -> bool:
        """At the end: wait for a jump. False where there will be none."""
        if not self.repeats:
            return False
        self.resting = True
        self._wait(lambda: self._wanted is not None)
        return not self._closed

    def _wait(self, ready: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or ready())

    def close(self) -> None:
        """End waiting and reading. Calling it twice is harmless."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Frame]:
        while (frame := self.read()) is not None:
            yield frame

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._source.close()


def _nothing() -> None:
    """What is called at the end where nobody wants to know."""


def open_file_at(name: str, seconds: float, stream: int | None = None) -> Source:
    """Open a file so that it is read from the last key frame before `seconds`; anything else from its beginning."""
    if seconds > 0 and os.path.isfile(name):
        try:
            return VideoSource(os.path.abspath(name), stream=stream, start=seconds)
        except CliprlError:
            pass  # it can't be sought in: all of it is decoded
    return open_source(name, stream=stream)
