"""Capture: a thread that reads a live stream's source, detects stalls, and reconnects."""

from __future__ import annotations

import gc
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import Source, StreamInfo
from cliprl.pipeline.core.queues import Backoff, BoundedQueue
from cliprl.pipeline.live.broadcast import SourceState
from cliprl.pipeline.live.plane_pool import PlanePool
from cliprl.pipeline.sources.decoding.packet_queue import Overdue
from cliprl.pipeline.sources.errors import Problem, SourceError, source_error

# Frames that may wait for the display; the oldest is dropped.
QUEUE = 16
# Pauses in seconds before attempts to connect. Each is shortened by a random factor of 0.5 to 1.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
# The longest pause for a server that denies access: it may lock the account.
_LONGEST_DENIED = 60.0
# A camera has stalled if no frame arrives for this many seconds and this many frame periods.
STALL_SECONDS, _STALL_PERIODS = 0.35, 2.5
# Intervals between frames from which the frame period is averaged; the longest one is left out.
_INTERVALS = 9
_UNDECODABLE = "what the camera sends can't be decoded after a loss, until its next key frame"
_TICK = 0.01
# Seconds that `close` waits for a source that is inside a read.
_CLOSE_TIMEOUT = 2.0


class CapturedFrame(NamedTuple):
    """A frame, and the number of the connection that delivered it."""

    frame: Frame
    connection: int


class SourceStatus(NamedTuple):
    """The state of the source, its start (`time.time()`), and the problem, one line, if there is one."""

    state: SourceState
    since: float
    problem: str = ""


class LiveCapture(threading.Thread):
    """Reads a source as fast as it delivers frames, and reconnects with growing pauses when it fails.

    `connect` opens the source; `first` is a source that is open already. A file is read at its own rate, waits while
    `paused`, and is not reopened. Without `reconnect` the first end or error is final.
    """

    def __init__(
        self, connect: Callable[[], Source], first: Source | None = None, *, name: str, reconnect: bool = True
    ) -> None:
        super().__init__(name="capture", daemon=True)
        self.label = name
        self.info: StreamInfo | None = first.info if first else None
        self.paused = False
        self.damaged = self.skipped = self.connections = 0
        self.error: CliprlError | None = None
        self._open, self._source, self._reconnect = connect, first, reconnect
        self._queue: BoundedQueue[CapturedFrame] = BoundedQueue(QUEUE)
        self._planes = PlanePool()
        self._status = SourceStatus(SourceState.CONNECTING, time.time())
        self._overdue, self._overdue_frames = Overdue(), 0
        self._reading: Source | None = None
        self._last, self._intervals = 0.0, deque[float](maxlen=_INTERVALS)
        self._anchor: float | None = None
        self._anchored = 0  # the jumps before the anchor
        self.delayed = 0.0  # seconds by which a file was played more slowly than at its own rate
        self._jumps = 0  # seeks in a file: frames before and after one do not follow each other
        self._stopped = threading.Event()

    @property
    def live(self) -> bool:
        """Whether the source is live, which is assumed until it is open."""
        return self.info is None or self.info.live

    @property
    def dropped(self) -> int:
        """Frames that were never displayed, including those that were not decoded."""
        return self._queue.dropped + self._overdue_frames + self.skipped

    @property
    def period(self) -> float:
        """Seconds between frames: measured, else as the source states, else 1/25."""
        intervals, stated = tuple(self._intervals), self.info.rate if self.info else None
        if len(intervals) == _INTERVALS:
            return (sum(intervals) - max(intervals)) / (_INTERVALS - 1)
        return 1 / float(stated) if stated else 0.04

    @property
    def status(self) -> SourceStatus:
        """The status now. A camera without new frames has stalled, or is behind if received packets wait for the decoder."""
        status, silent = self._status, time.monotonic() - self._last
        if status.state is SourceState.LIVE and self.live and silent > max(STALL_SECONDS, _STALL_PERIODS * self.period):
            since, reading = time.time() - silent, self._reading  # once: the thread that reads may end meanwhile
            if reading is not None and reading.waiting:
                return SourceStatus(SourceState.BEHIND, since, "this machine is too slow for the stream")
            lost = reading is not None and reading.is_undecodable
            return SourceStatus(SourceState.STALLED, since, _UNDECODABLE if lost else "the camera has stopped sending")
        return status

    def next(self, timeout: float) -> CapturedFrame | None:
        """Return the oldest waiting frame; None after `timeout` seconds, or at the end.

        Overdue frames of a camera are dropped if a newer one waits; those of a stream in segments, such as HLS, are not.
        """
        captured = self._queue.get(timeout)
        while (
            captured and self.live and not self._is_segmented and len(self._queue) and self._is_overdue(captured.frame)
        ):
            self._overdue_frames += 1
            captured = self._queue.get(0)
        return captured

    @property
    def _is_segmented(self) -> bool:
        """Whether the source delivers several seconds at once, as HLS does; they are then displayed at the frame rate."""
        reading = self._reading
        return reading is not None and reading.stored

    def _is_overdue(self, frame: Frame) -> bool:
        now = time.monotonic()
        return self._overdue(now - frame.times["captured"], now)

    @property
    def ended(self) -> bool:
        """Whether the source has ended for good and no frame waits."""
        return self._queue.closed and not len(self._queue)

    def stop(self) -> None:
        """Stop reading. For any thread or a signal handler."""
        self._stopped.set()

    def close(self) -> None:
        """Stop and wait for the thread. A source that hangs inside a read is abandoned."""
        self.stop()
        if self.is_alive():
            self.join(_CLOSE_TIMEOUT)

    def run(self) -> None:
        """Read until `stop`, or until the source has ended for good."""
        try:
            while not self._stopped.is_set():
                source = self._source or self._connect()
                self._source = None
                if source is not None:
                    self.error = self._read(source)
                if not self._prepare_reconnect():
                    break
        finally:
            self._set_status(SourceState.ENDED, str(self.error or ""))
            self._queue.close()

    def _prepare_reconnect(self) -> bool:
        """Return whether to reconnect."""
        if not (self._reconnect and self.live):
            return False
        self._set_status(SourceState.RECONNECTING, str(self.error or ""))
        gc.collect()  # frees the cycles of the closed source now, while no frame can be delayed by it
        return True

    def _connect(self) -> Source | None:
        backoff, longest = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), _LONGEST_PAUSE
        while not self._stopped.wait(backoff.next(longest) * random.uniform(0.5, 1)):
            try:
                return self._open()
            except Exception as error:  # no error of a driver or library may end the capture without a word
                self.error = error if isinstance(error, CliprlError) else self._unexpected(error)
                self._set_status(self._status.state, str(self.error))
                if not self._reconnect:
                    return None
                denied = isinstance(error, SourceError) and error.problem is Problem.UNAUTHORISED
                longest = _LONGEST_DENIED if denied else _LONGEST_PAUSE
        return None

    def _read(self, source: Source) -> CliprlError | None:
        """Read a source to its end. Return the error that ended it."""
        self.connections, self.error = self.connections + 1, None
        self.info, damaged, skipped, self._anchor = source.info, self.damaged, self.skipped, None
        self._reading = source
        try:
            with source:
                while not self._stopped.is_set():
                    frame = source.read(self._planes)
                    self.skipped = skipped + source.skipped
                    self._jumps = source.jumps
                    if frame is None:
                        return self._end_error()
                    self._put(frame)
                    self.info, self.damaged = source.info, damaged + source.damaged
        except CliprlError as error:
            return error
        except Exception as error:  # no error of a driver or decoder may stop the display
            return self._unexpected(error)
        finally:
            self._reading = None
        return None

    def _unexpected(self, error: Exception) -> SourceError:
        return SourceError(f"{self.label}: {type(error).__name__}: {error}")

    def _end_error(self) -> CliprlError | None:
        return source_error(SourceError, Problem.ENDED, f"{self.label} has ended") if self.live else None

    def _put(self, frame: Frame) -> None:
        if not self.live or self._is_segmented:
            self._pace(frame)
        now = time.monotonic()
        if not self.live or "captured" not in frame.times:
            frame.times["captured"] = now
        if self._status.state is SourceState.LIVE:
            self._intervals.append(now - self._last)
        self._last = now
        if self._status.state is not SourceState.LIVE:
            self._set_status(SourceState.LIVE, "")
        self._queue.put(CapturedFrame(frame, self.connections + self._jumps))

    def _pace(self, frame: Frame) -> None:
        """Wait until a frame of a file is due, and while the queue is full."""
        while self.paused and not self._stopped.wait(_TICK):
            self._anchor = None
        early = 0.0 if self._anchor is None else self._anchor + frame.seconds - time.monotonic()
        if self._anchor is None or early < -STALL_SECONDS:
            self.delayed -= early if self._anchored == self._jumps else 0.0
            self._anchor, self._anchored = time.monotonic() - frame.seconds, self._jumps
        elif early > 0:
            self._stopped.wait(early)
        while self._queue.full and not self._stopped.wait(_TICK):
            pass

    def _set_status(self, state: SourceState, problem: str) -> None:
        since = self._status.since if state is self._status.state else time.time()
        self._status = SourceStatus(state, since, problem)
