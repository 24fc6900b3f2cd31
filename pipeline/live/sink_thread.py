"""A thread that writes displayed frames to one sink, so that a slow or failing sink never delays the display."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from cliprl.engines import CliprlError, ignore_message
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import BaseSink, Sink
from cliprl.pipeline.core.queues import Backoff, BoundedQueue
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.thread_policy import FILE_NICENESS, lower_priority
from cliprl.pipeline.sinks.base import FileSink
from cliprl.pipeline.sinks.video.coded_frame import can_start
from cliprl.pipeline.sinks.video.live_encoding import Quality

# Frames that may wait for a file, which should miss none, and for a network stream, which should be up to date: those of
# `NETWORK_SPAN` seconds, at least `NETWORK_QUEUE`.
FILE_QUEUE, NETWORK_QUEUE, NETWORK_SPAN = 48, 3, 0.12
# Pauses in seconds before a sink is reopened.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0
# Seconds for which a reopened file must take frames until the fault counts as over.
_RECOVERED_S = 2.0
# Seconds that `close` waits for a sink to finish, and for a network stream that has a fault: another attempt would send nothing.
_CLOSE_TIMEOUT, _CLOSE_FAULTY = 20.0, 1.0
# Seconds after which a message of a network stream is repeated, if it is still true.
_REPEAT_S = 60.0

_Item = tuple[Frame, Segmentation | None]


class SinkThread(threading.Thread):
    """Writes frames to one sink. `open_sink` opens it on this thread when the first frame is there.

    A file takes all frames, up to `FILE_QUEUE` late; more are counted in `dropped`. Its thread has a lower priority than the
    display's. After a fault `open_next`, if given, opens the file in which it continues; without it the output ends. A
    `network` sink drops the oldest frames and is reopened; it has failed only if it never took a frame. `written` counts the
    frames taken; `error` is the present fault. `name` is the output's, for notes; `log` gets the faults of a network sink.
    `quality`: the sink opens its encoder by `LiveEncoding`, with this quality, and so can share packets (see `SharedEncoder`).
    """

    def __init__(
        self,
        open_sink: Callable[[], Sink],
        *,
        name: str = "an output",
        network: bool = False,
        quality: Quality | None = None,
        open_next: Callable[[], Sink] | None = None,
        log: Callable[[str], None] = ignore_message,
    ) -> None:
        super().__init__(name="sink", daemon=True)
        self.target = name
        self._log, self._logged = log, dict[str, float]()
        self.written = 0
        self.error: CliprlError | None = None
        self.failure: CliprlError | None = None  # with which the run has failed
        self.notes: list[str] = []
        self._open, self.network = open_sink, network
        self._open_next = open_sink if network else open_next
        self.quality, self._paused = quality, False
        self._sink: Sink | None = None
        self._queue: BoundedQueue[_Item] = (
            BoundedQueue(NETWORK_QUEUE, span=lambda _: NETWORK_SPAN, starts=lambda item: can_start(item[0]))
            if network
            else BoundedQueue(FILE_QUEUE, keep_oldest=True)
        )
        self._lost = 0

    @property
    def takes_frames(self) -> bool:
        """Whether a frame has a use: not between two attempts to connect."""
        return not self._paused

    @property
    def takes_packets(self) -> bool:
        """Whether the packet of a frame has a use. A sink without this attribute may use it."""
        return bool(getattr(self._sink, "takes_packets", True))

    @property
    def needs_key(self) -> bool:
        """Whether frames have been lost, and it takes frames again: the next one should be a key frame."""
        return self._queue.broken and self._queue.awaited

    @property
    def dropped(self) -> int:
        """Frames that are missing in the output."""
        return self._queue.dropped + self._lost

    @property
    def remark(self) -> str:
        """The problem of the output, without numbers, which change; empty if there is none."""
        if self.error is not None:
            return f"{self.error}; trying again" if self._open_next and not self.network else str(self.error)
        return f"frames are missing in '{self.target}'" if self.dropped and not self.network else ""

    def put(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Add a frame that is not written to any more. Never waits."""
        if self.error and self._open_next is None:
            self._lost += 1
        else:
            self._queue.put((frame, segmentation))

    def close(self) -> None:
        """Write the waiting frames, finish the sink and end the thread."""
        self._queue.close()
        if self.is_alive():
            self.join(_CLOSE_FAULTY)
        if self.is_alive() and not (self.network and self.error):
            if self.network and not self.written:
                self._say(f"waiting up to {_CLOSE_TIMEOUT - _CLOSE_FAULTY:g} s more for {self.target} to answer")
            self.join(_CLOSE_TIMEOUT - _CLOSE_FAULTY)
        if self.network and not self.written:
            unanswered = CliprlError(f"no frame was sent to '{self.target}': it does not answer")
            self.failure = self.error or (unanswered if self.is_alive() else None)
        elif self.is_alive() and not self.network:
            self._lost += len(self._queue.clear())
            late = CliprlError(
                f"'{self.target}' was not complete {_CLOSE_TIMEOUT:g} s after the end: check its disk, or the reader of a pipe"
            )
            self.failure = self.failure or late
        missing = (
            f"{self.dropped} frames are missing in '{self.target}': the disk or the encoder is too slow, or has failed"
        )
        if self.dropped and not self.network and missing not in self.notes:
            self.notes.append(missing)

    def run(self) -> None:
        """Write until `close`, and reopen the sink after faults."""
        if not self.network:
            lower_priority(FILE_NICENESS)
        backoff, open_sink = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE), self._open
        while self._queue.wait():
            started = time.monotonic()
            try:
                self._write_all(open_sink)
            except CliprlError as error:
                self._fail(error)
            except Exception as error:
                self._fail(CliprlError(f"{type(error).__name__}: {error}"))
            if self._open_next is None or (self.network and self._queue.closed):
                return
            open_sink = self._open_next
            if time.monotonic() - started > _LONGEST_PAUSE:
                backoff.reset()
            self._paused = self.network
            self._queue.pause(backoff.next())
            if self.network:
                self._queue.clear()
            self._paused = False

    def _write_all(self, open_sink: Callable[[], Sink]) -> None:
        """Write until the queue is closed and empty. A file that fails again within the first seconds is removed."""
        sink, opened, written = open_sink(), time.monotonic(), self.written
        self._sink = sink
        try:
            with sink:
                while (item := self._queue.get()) is not None:
                    self._write(sink, item)
                    if self.network or time.monotonic() - opened > _RECOVERED_S:
                        self._recover(sink)
                    del item  # a waiting thread must not keep the frame's memory
        except Exception:
            if self.error is not None and isinstance(sink, FileSink):
                sink.remove_partial()
                self._lost += self.written - written
                self.written = written
            raise
        finally:
            self._sink = None
            self.notes += [note for note in getattr(sink, "notes", ()) if note not in self.notes]
        self._recover(sink)

    def _recover(self, sink: Sink) -> None:
        """Note that the fault, if there was one, is over."""
        if self.error is not None and isinstance(sink, FileSink):
            self.notes.append(f"'{self.target}' continues in '{sink.target}'")
        elif self.error is not None:
            self._say(f"streaming to {self.target} again" if self.written > 1 else f"streaming to {self.target}")
        self.error = None

    def _write(self, sink: Sink, item: _Item) -> None:
        try:
            sink.write(*item)
        except Exception:
            self._lost += not self.network
            raise
        self.written += 1

    def _fail(self, error: CliprlError) -> None:
        if self.error is None and str(error) not in self.notes:
            self.notes.append(str(error))
        self.error = error
        if self.network:
            self._say(f"{error}; trying again")
        else:
            self.failure = self.failure or error
        if self._open_next is None or (self._queue.closed and not self.network):
            self._lost += len(self._queue.clear())

    def _say(self, text: str) -> None:
        """Log a message, unless it was logged a short time ago: a server may take and end connections all the time."""
        now = time.monotonic()
        if self.network and now - self._logged.get(text, -_REPEAT_S) >= _REPEAT_S:
            self._logged[text] = now
            self._log(text)


class ThreadedSink(BaseSink):
    """A network stream as an output of a file's run, which does not wait for it: a `SinkThread` takes copies of the frames.

    Leaving it raises the error of a stream that never took a frame.
    """

    def __init__(
        self, open_sink: Callable[[], Sink], *, name: str, log: Callable[[str], None] = ignore_message
    ) -> None:
        self._thread = SinkThread(open_sink, name=name, network=True, log=log)
        self._closed = False

    @property
    def notes(self) -> list[str]:  # type: ignore[override]
        """One-line remarks for the user."""
        return self._thread.notes

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Hand a copy of the frame to the thread, which drops the oldest ones if the receiver is slow or away."""
        if not self._thread.is_alive():
            self._thread.start()
        copied = replace(frame, luma=frame.luma.copy(), chroma=frame.chroma.copy(), image=None, original=None)
        self._thread.put(copied, segmentation)
        self.frames = self._thread.written

    def close(self) -> None:
        """Send what is left. Calling it twice is harmless."""
        self._thread.close()
        self.frames = self._thread.written
        failure = None if self._closed else self._thread.failure
        self._closed = True
        if failure is not None:
            raise failure

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(*(() if kind is None else (CliprlError,))):  # after an error, that error is reported
            self.close()
