"""The source of a live stream: read on a thread of its own, watched, and opened again when it goes away."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from cliprl.engines import CliprlError
from cliprl.pipeline.core.buffers import PlanePool
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import Source, StreamInfo
from cliprl.pipeline.live.broadcast import SourceState
from cliprl.pipeline.sources.decoding.packet_queue import Overdue
from cliprl.pipeline.sources.errors import Problem, SourceError, source_error

# Frames that may wait for the display; the oldest goes.
QUEUE = 16
# Seconds before the first and before any further attempt to connect. Each wait is a random half to whole of what is doubled.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
# A server that denies access is asked less and less often: it may lock the account.
_LONGEST_DENIED = 60.0
# A camera stalls when no frame has come for this many seconds, or for so many of its frame periods.
STALL, _STALL_PERIODS = 0.35, 2.5
# Times between so many frames make the period; the longest is left out, which may be a stall.
_GAPS = 9
_TICK = 0.01
# How long closing waits for a source that is inside a read.
_PATIENCE = 2.0


class CapturedFrame(NamedTuple):
    """A frame, and the number of the connection it came over."""

    frame: Frame
    connection: int


class SourceStatus(NamedTuple):
    """Where the source stands, since when (`time.time()`), and what is wrong with it, if anything."""

    state: SourceState
    since: float
    problem: str = ""


class LiveCapture(threading.Thread):
    """Reads a source as fast as it gives frames, and connects again when it breaks, with growing pauses.

    `connect` opens the source; `first` is one that is open already. A source that is not live (a file) is read at its own
    pace, waits while `paused`, and is not opened again. With `reconnect` off the first end or error is the last.
    """

    def __init__(
        self, connect: Callable[[], Source], first: Source | None = None, *, name: str, reconnect: bool = True
    ) -> None:
        super().__init__(name="camera", daemon=True)
        self.label = name
        self.info: StreamInfo | None = first.info if first else None
        self.paused = False
        self.damaged = self.skipped = self.connections = 0
        self.error: CliprlError | None = None
        self._connect_now, self._source, self._reconnect = connect, first, reconnect
        self._changed = threading.Condition()
        self._frames: deque[CapturedFrame] = deque(maxlen=QUEUE)
        self._planes = PlanePool()
        self._standing = SourceStatus(SourceState.CONNECTING, time.time())
        self._missed, self._overdue = 0, Overdue()
        self._reading: Source | None = None
        self._last, self._gaps = 0.0, deque[float](maxlen=_GAPS)
        self._anchor: float | None = None
        self._jumps = 0  # of a file that is sought in: its frames do not follow each other there
        self._stopped = threading.Event()

    @property
    def live(self) -> bool:
        """Whether it is a camera, which can't wait (and which is what one assumes before it is known)."""
        return self.info is None or self.info.live

    @property
    def dropped(self) -> int:
        """Frames that were never displayed, those that were not even decoded among them."""
        return self._missed + self.skipped

    @property
    def period(self) -> float:
        """Seconds between frames: measured, else as stated, else those of 25 a second."""
        gaps, stated = tuple(self._gaps), self.info.rate if self.info else None
        if len(gaps) == _GAPS:
            return (sum(gaps) - max(gaps)) / (_GAPS - 1)
        return 1 / float(stated) if stated else 0.04

    @property
    def standing(self) -> SourceStatus:
        """Where the source stands now. A camera without a frame for too long is stalled; where packets wait, we are behind."""
        standing, silent = self._standing, time.monotonic() - self._last
        if standing.state is SourceState.LIVE and self.live and silent > max(STALL, _STALL_PERIODS * self.period):
            since, waiting = time.time() - silent, getattr(self._reading, "waiting", 0)
            if waiting:
                return SourceStatus(SourceState.BEHIND, since, "this machine is too slow for the stream")
            return SourceStatus(SourceState.STALLED, since, "the camera has stopped sending")
        return standing

    def next(self, timeout: float) -> CapturedFrame | None:
        """The oldest frame that waits; None after `timeout` seconds, or when there will be no more.

        Of a camera, what has been late for a while is left out where there is something newer; not of HLS and the like.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self.ended, timeout)
            while self.live and not self._stored and len(self._frames) > 1 and self._is_overdue(self._frames[0].frame):
                self._frames.popleft()
                self._missed += 1
            return self._frames.popleft() if self._frames else None

    @property
    def _stored(self) -> bool:
        """Whether it comes a stored part at a time, several of which lie ready: shown at the rate at which it was taken."""
        return bool(getattr(self._reading, "stored", False))

    def _is_overdue(self, frame: Frame) -> bool:
        now = time.monotonic()
        return self._overdue(now - frame.times["captured"], now)

    @property
    def ended(self) -> bool:
        """Whether the source is over for good; frames may still wait."""
        return self._standing.state is SourceState.ENDED

    def stop(self) -> None:
        """Read no further. May be called from any thread or a signal handler."""
        self._stopped.set()

    def close(self) -> None:
        """Stop, and wait for the thread; a source that hangs inside a read is left to itself."""
        self.stop()
        if self.is_alive():
            self.join(_PATIENCE)

    def run(self) -> None:
        """The thread's body."""
        try:
            while not self._stopped.is_set():
                source = self._source or self._connect()
                self._source = None
                if source is not None:
                    self.error = self._read(source)
                if not self._again():
                    break
        finally:
            self._stand(SourceState.ENDED, str(self.error or ""))

    def _again(self) -> bool:
        if not (self._reconnect and self.live):
            return False
        self._stand(SourceState.RECONNECTING, str(self.error or ""))
        gc.collect()  # what a closed source held is in cycles; nothing is to be displayed that this could hold up
        return True

    def _connect(self) -> Source | None:
        pause = _FIRST_PAUSE
        while not self._stopped.wait(pause * random.uniform(0.5, 1)):
            try:
                return self._connect_now()
            except CliprlError as error:
                self.error = error
                self._stand(self._standing.state, str(error))
                if not self._reconnect:
                    return None
                denied = getattr(error, "problem", None) is Problem.UNAUTHORISED
                pause = min(2 * pause, _LONGEST_DENIED if denied else _LONGEST_PAUSE)
        return None

    def _read(self, source: Source) -> CliprlError | None:
        """Read a source to its end; what ended it."""
        self.connections, self.error = self.connections + 1, None
        self.info, damaged, skipped, self._anchor = source.info, self.damaged, self.skipped, None
        self._reading = source
        try:
            with source:
                while not self._stopped.is_set():
                    frame = source.read(self._planes)
                    self.skipped = skipped + getattr(source, "skipped", 0)
                    self._jumps = getattr(source, "jumps", 0)
                    if frame is None:
                        return self._end()
                    self._put(frame)
                    self.damaged = damaged + source.damaged
        except CliprlError as error:
            return error
        except Exception as error:  # whatever a driver or a decoder comes up with, the display goes on
            return SourceError(f"{self.label}: {type(error).__name__}: {error}")
        finally:
            self._reading = None
        return None

    def _end(self) -> CliprlError | None:
        return source_error(SourceError, Problem.ENDED, f"{self.label} has ended") if self.live else None

    def _put(self, frame: Frame) -> None:
        if not self.live or self._stored:
            self._pace(frame)
        now = time.monotonic()
        if not self.live or "captured" not in frame.times:
            frame.times["captured"] = now
        if self._standing.state is SourceState.LIVE:
            self._gaps.append(now - self._last)
        self._last = now
        if self._standing.state is not SourceState.LIVE:
            self._stand(SourceState.LIVE, "")
        with self._changed:
            self._missed += len(self._frames) == QUEUE
            self._frames.append(CapturedFrame(frame, self.connections + self._jumps))
            self._changed.notify_all()

    def _pace(self, frame: Frame) -> None:
        """Let a file play at its own rate; it waits for the display where that is behind."""
        while self.paused and not self._stopped.wait(_TICK):
            self._anchor = None
        early = 0.0 if self._anchor is None else self._anchor + frame.seconds - time.monotonic()
        if self._anchor is None or early < -STALL:
            self._anchor = time.monotonic() - frame.seconds
        elif early > 0:
            self._stopped.wait(early)
        while len(self._frames) == QUEUE and not self._stopped.wait(_TICK):
            pass

    def _stand(self, state: SourceState, problem: str) -> None:
        since = self._standing.since if state is self._standing.state else time.time()
        with self._changed:
            self._standing = SourceStatus(state, since, problem)
            self._changed.notify_all()
