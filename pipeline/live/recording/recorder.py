"""Recording of captured frames, displayed frames, or both. It is switched on and off while the stream runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.queues import Backoff, BoundedQueue
from cliprl.pipeline.core.thread_policy import FILE_NICENESS, lower_priority
from cliprl.pipeline.live.broadcast import DisplayedFrame, RecordingStatus, RecordState
from cliprl.pipeline.live.recording.segments import SegmentWriter, recording_folder
from cliprl.pipeline.sinks.video.coded_frame import can_start
from cliprl.pipeline.sinks.video.live_encoding import LiveEncoding, Quality, cpu_encoding

# Frames that may wait for the disk: more than two seconds at 25 frames a second.
QUEUED_FRAMES = 64
# Pauses in seconds before recording is tried again after a fault.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
# Seconds that `close` waits for the file to be finished.
_CLOSE_TIMEOUT = 20.0
RECORDED = {"raw": ("raw",), "overlay": ("overlay",), "both": ("raw", "overlay")}


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Where and what to record. what: "raw" (every camera frame), "overlay" (every displayed frame) or "both".

    encoding: makes what chooses the encoder of a kind's files.
    """

    folder: Path
    what: str = "both"
    minutes: float = 5.0
    crf: float = 23
    preset: str = "ultrafast"
    encoding: Callable[[str], LiveEncoding] = cpu_encoding


class Recording(threading.Thread):
    """Writes one kind of frames on a separate thread, whose priority is lower than the display's.

    `missed` counts the frames that are in no file. The frames are already pixelated outside the body. Raises UsageError at once
    if the folder can't be written. After a later fault (a full disk, no file handle, a missing folder, an encoder error) it
    retries with a new file at growing intervals; meanwhile `error` is the fault, and frames that do not fit into the queue are
    missed.
    """

    def __init__(self, kind: str, options: RecordOptions, info: Callable[[], StreamInfo | None]) -> None:
        super().__init__(name=f"record {kind}", daemon=True)
        self.kind, self.faults = kind, 0
        self.error: CliprlError | None = None
        self._late: CliprlError | None = None
        self._last_error = ""
        self._options, self._info = options, info
        self._encoding = options.encoding(f"the {kind} recording")
        shares = kind == "overlay" and self._encoding.on_cpu  # it can use the packets of a `SharedEncoder`
        self.quality = Quality(options.crf, options.preset) if shares else None
        self._folder = recording_folder(options.folder)
        self._queue: BoundedQueue[Frame | None] = BoundedQueue(  # None: finish the file
            QUEUED_FRAMES, keep_oldest=True, starts=lambda frame: frame is not None and can_start(frame)
        )
        self._wake = threading.Condition()
        self._writer: SegmentWriter | None = None
        self._refused: Frame | None = None
        self._running, self._backoff = False, Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._given_up = self._lost_before = 0
        self._on = False

    @property
    def failure(self) -> CliprlError | None:
        """The present fault: the run has failed if it ends with it."""
        return self.error or self._late

    @property
    def takes_frames(self) -> bool:
        """Whether displayed frames are to be recorded now."""
        return self._on and self._info() is not None

    @property
    def takes_packets(self) -> bool:
        """Whether the packet of a frame has a use."""
        return self.takes_frames

    @property
    def state(self) -> RecordState:
        """Whether frames reach the disk now."""
        if not self._on or self._queue.closed:
            return RecordState.OFF
        if self.error is not None:
            return RecordState.FAILED
        return RecordState.RECORDING if self._running else RecordState.STARTING

    @property
    def status(self) -> RecordingStatus:
        """The state with the counts."""
        return RecordingStatus(self.kind, self.state, self.frames, self.missed, self.faults, self._last_error)

    @property
    def missed(self) -> int:
        """Frames that are in no file so far, without those that wait."""
        return self._queue.dropped + self._given_up + self._lost_before + (self._writer.lost if self._writer else 0)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files so far."""
        return tuple(self._writer.paths) if self._writer else ()

    @property
    def notes(self) -> list[str]:
        """One-line remarks for the user."""
        missed = f"{self.missed} frames are missing in the {self.kind} recording"
        why = f": {self._last_error}" if self._last_error else ": the disk or the encoder is too slow"
        problems = [*([str(self.error)] if self.error else []), *([missed + why] if self.missed else [])]
        return [*self._encoding.notes, *problems]

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._writer.frames if self._writer else 0

    def switch(self, on: bool) -> None:
        """Start to record, or finish the file."""
        if on != self._on:
            self._on = on
            if not on:
                self._queue.put(None, always=True)
                with self._wake:
                    self._wake.notify_all()

    def put(self, shown: DisplayedFrame) -> None:
        """Add a frame. Never waits."""
        if self._on and (self.kind == "overlay" or shown.from_camera):
            self.add(shown.shared_raw if self.kind == "raw" else shown.shared_overlaid)

    def add(self, frame: Frame) -> None:
        """Add a frame of the recording's kind. Never waits."""
        self._queue.put(frame)

    def miss(self, frames: int) -> None:
        """Count frames that were lost before."""
        self._lost_before += frames

    def close(self) -> None:
        """Write the waiting frames, finish the file and end the thread."""
        self._queue.close()
        with self._wake:
            self._wake.notify_all()
        if self.is_alive():
            self.join(_CLOSE_TIMEOUT)
        if self.is_alive():
            self._given_up += sum(frame is not None for frame in self._queue.clear())
            self._late = CliprlError(
                f"the {self.kind} recording in '{self._folder}' was not complete {_CLOSE_TIMEOUT:g} s after the end: "
                "check its disk"
            )

    def run(self) -> None:
        """Write until `close`, and try again after faults."""
        lower_priority(FILE_NICENESS)
        self._encoding.prepare()
        while self._queue.wait():
            self._try(self._queue.peek())
        self._try(None)
        self._encoding.close()

    def _try(self, item: Frame | None) -> None:
        """Write the oldest frame of the queue, or finish the file (None). After a fault, wait before the next attempt."""
        try:
            safe = self._finish() if item is None else self._write(item)
        except CliprlError as error:
            self._fail(error, item)
            return
        self._remove(item)
        if safe:
            self.error = None
            self._backoff.reset()
            self._running = item is not None

    def _finish(self) -> bool:
        """Finish the file. Return whether there was one."""
        self._running = False
        return self._writer is not None and self._writer.finish()

    def _write(self, item: Frame) -> bool:
        """Write a frame. Return whether frames of its file are on the disk."""
        info = self._info()
        if self._writer is None and info is not None:
            o = self._options
            self._writer = SegmentWriter(
                self._folder,
                self.kind,
                info,
                minutes=o.minutes,
                crf=o.crf,
                preset=o.preset,
                encoding=self._encoding,
            )
        if self._writer is None:
            return False
        if self._writer.is_open or can_start(item):
            self._writer.write(item)
        else:  # after a fault: its packet needs those that were lost
            self._given_up += 1
        return self._writer.safe

    def _fail(self, error: CliprlError, item: Frame | None) -> None:
        again = item is not None and item is self._refused
        self.faults += 1
        self._running, self._refused = False, item
        self.error, self._last_error = error, str(error)
        if item is None:  # the file is closed, though incomplete
            self._remove(item)
        elif again and (self._queue.closed or not self._on):
            self._given_up += sum(frame is not None for frame in self._queue.clear())
        elif again and not isinstance(error.__cause__, OSError):  # the encoder rejects this frame: skip it
            self._given_up += 1
            self._remove(item)
        with self._wake:
            self._wake.wait_for(lambda: self._queue.closed or not self._on, self._backoff.next())

    def _remove(self, item: Frame | None) -> None:
        if len(self._queue) and self._queue.peek() is item:
            self._queue.get(0)


def recordings(options: RecordOptions, info: Callable[[], StreamInfo | None]) -> tuple[Recording, ...]:
    """Return a recording for each kind that `options.what` names."""
    return tuple(Recording(kind, options, info) for kind in RECORDED[options.what])
