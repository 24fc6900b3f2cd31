"""Recording of what the camera gives, of what is displayed, or both; switched on and off while the stream runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.live.broadcast import DisplayedFrame, RecordingStatus, RecordState
from cliprl.pipeline.live.recording.segments import Segments, recording_folder

# Frames that may wait for the disk: two seconds and more.
QUEUE = 64
# Seconds before recording is tried again after a fault, doubled each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_PATIENCE = 20.0
KINDS = {"raw": ("raw",), "overlay": ("overlay",), "both": ("raw", "overlay")}


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Where and what to record. what: "raw" (every camera frame), "overlay" (every displayed frame) or "both"."""

    folder: Path
    what: str = "both"
    minutes: float = 5.0
    crf: float = 23
    preset: str = "ultrafast"


class Recording(threading.Thread):
    """Writes the frames it is given, on a thread for each kind. `missed` counts those that are in no file.

    Frames come guarded. Raises UsageError at once where the folder can't be written. After a later fault (a full disk, no file
    handle, a folder that is gone, an encoder error) it goes on with a new file, at growing intervals until that works;
    meanwhile `error` tells why, and the frames that do not fit into the queue are missed.
    """

    forgiving = False

    def __init__(self, kind: str, options: RecordOptions, info: Callable[[], StreamInfo | None]) -> None:
        super().__init__(name=f"record {kind}", daemon=True)
        self.kind, self.faults = kind, 0
        self.error: CliprlError | None = None
        self._last_error = ""
        self._options, self._info = options, info
        self._folder = recording_folder(options.folder)
        self._changed = threading.Condition()
        self._frames: deque[Frame | None] = deque()
        self._segments: Segments | None = None
        self._refused: Frame | None = None
        self._running, self._pause = False, _FIRST_PAUSE
        self._dropped = self._given_up = 0  # by the thread that gives frames, and by this one
        self._on = self._closed = False

    @property
    def state(self) -> RecordState:
        """What becomes of the frames that come now."""
        if not self._on or self._closed:
            return RecordState.OFF
        if self.error is not None:
            return RecordState.FAILED
        return RecordState.RECORDING if self._running else RecordState.STARTING

    @property
    def status(self) -> RecordingStatus:
        """How the recording stands, for a display."""
        return RecordingStatus(self.kind, self.state, self.frames, self.missed, self.faults, self._last_error)

    @property
    def missed(self) -> int:
        """Frames that are in no file: the disk was too slow for them, or a fault took them."""
        return self._dropped + self._given_up + (self._segments.lost if self._segments else 0)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files begun so far."""
        return tuple(self._segments.paths) if self._segments else ()

    @property
    def notes(self) -> list[str]:
        """One-line remarks for the user."""
        missed = f"{self.missed} frames are missing in the {self.kind} recording"
        why = f": {self._last_error}" if self._last_error else ": the disk or the encoder is too slow"
        return [*([str(self.error)] if self.error else []), *([missed + why] if self.missed else [])]

    @property
    def frames(self) -> int:
        """Frames written so far."""
        return self._segments.frames if self._segments else 0

    def switch(self, on: bool) -> None:
        """Record from now on, or finish the file."""
        if on != self._on:
            self._on = on
            if not on:
                self._append(None)

    def put(self, shown: DisplayedFrame) -> None:
        """Hand over a frame. Never waits."""
        if not self._on or (self.kind == "raw" and not shown.camera):
            return
        if len(self._frames) >= QUEUE:
            self._dropped += 1
        else:
            self._append(shown.shared_raw if self.kind == "raw" else shown.shared_overlaid)

    def close(self) -> None:
        """Write what still waits, finish the file, end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self.is_alive():
            self.join(_PATIENCE)

    def run(self) -> None:
        """The thread's body."""
        while self._wait():
            self._try(self._frames[0])
        self._try(None)

    def _try(self, item: Frame | None) -> None:
        """Write the frame at the head of the queue, or finish the file (None). After a fault wait before the next try."""
        try:
            safe = self._finish() if item is None else self._write(item)
        except CliprlError as error:
            self._fail(error, item)
            return
        self._take(item)
        if safe:
            self.error, self._pause = None, _FIRST_PAUSE
            self._running = item is not None

    def _finish(self) -> bool:
        """Finish the file; whether there was one."""
        self._running = False
        return self._segments is not None and self._segments.finish()

    def _write(self, item: Frame) -> bool:
        """Write a frame; whether frames of its file are on the disk."""
        info = self._info()
        if self._segments is None and info is not None:
            o = self._options
            self._segments = Segments(self._folder, self.kind, info, minutes=o.minutes, crf=o.crf, preset=o.preset)
        if self._segments is not None:
            self._segments.write(item)
        return self._segments is not None and self._segments.safe

    def _fail(self, error: CliprlError, item: Frame | None) -> None:
        again = item is not None and item is self._refused
        self.faults += 1
        self._running, self._refused = False, item
        self.error, self._last_error = error, str(error)
        if item is None:  # the file is closed, if not as it should be
            self._take(item)
        elif again and (self._closed or not self._on):
            self._give_up()
        elif again and not isinstance(
            error.__cause__, OSError
        ):  # no encoder takes this frame: it must not hold up others
            self._given_up += 1
            self._take(item)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._on, self._pause)
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _give_up(self) -> None:
        """Drop what waits: the recording ends, and can't be written."""
        with self._changed:
            self._given_up += sum(frame is not None for frame in self._frames)
            self._frames.clear()

    def _take(self, item: Frame | None) -> None:
        with self._changed:
            if self._frames and self._frames[0] is item:
                self._frames.popleft()

    def _append(self, frame: Frame | None) -> None:
        with self._changed:
            self._frames.append(frame)
            self._changed.notify_all()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed)
            return bool(self._frames)


def recordings(options: RecordOptions, info: Callable[[], StreamInfo | None]) -> tuple[Recording, ...]:
    """A recording for each kind that `options.what` names."""
    return tuple(Recording(kind, options, info) for kind in KINDS[options.what])
