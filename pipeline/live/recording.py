"""Recording of what the camera gives, of what is displayed, or both; switched on and off while the stream runs."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import CliprlError
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.live.hub import Shown
from cliprl.pipeline.live.segments import Segments, recording_folder
from cliprl.pipeline.protocols import StreamInfo

# Pictures that may wait for the disk: two seconds and more.
QUEUE = 64
_PATIENCE = 20.0
KINDS = {"raw": ("raw",), "overlay": ("overlay",), "both": ("raw", "overlay")}


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """Where and what to record. what: "raw" (every camera frame), "overlay" (every displayed picture) or "both"."""

    folder: Path
    what: str = "both"
    minutes: float = 5.0
    crf: float = 23
    preset: str = "ultrafast"


class Recording(threading.Thread):
    """Writes the pictures it is given, on a thread for each kind. `missed` counts those that the disk was too slow for.

    Pictures come guarded. Raises UsageError at once where the folder can't be written; a disk that fails later ends the
    recording, and `error` tells of it.
    """

    def __init__(self, kind: str, options: RecordOptions, info: Callable[[], StreamInfo | None]) -> None:
        super().__init__(name=f"record {kind}", daemon=True)
        self.kind, self.missed, self.forgiving = kind, 0, False
        self.error: CliprlError | None = None
        self._options, self._info = options, info
        self._folder = recording_folder(options.folder)
        self._changed = threading.Condition()
        self._frames: deque[Frame | None] = deque()
        self._segments: Segments | None = None
        self._on = self._closed = False

    @property
    def recording(self) -> bool:
        """Whether pictures are being recorded."""
        return self._on and self.error is None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files begun so far."""
        return tuple(self._segments.paths) if self._segments else ()

    @property
    def notes(self) -> list[str]:
        """One-line remarks for the user."""
        missed = [
            f"{self.missed} pictures are missing in the {self.kind} recording: the disk or the encoder is too slow"
        ]
        return [*([str(self.error)] if self.error else []), *(missed if self.missed else [])]

    @property
    def frames(self) -> int:
        """Pictures written so far."""
        return self._segments.frames if self._segments else 0

    def switch(self, on: bool) -> None:
        """Record from now on, or finish the file."""
        if on != self._on:
            self._on = on
            if not on:
                self._append(None)

    def put(self, shown: Shown) -> None:
        """Hand over a picture. Never waits."""
        if not self.recording or (self.kind == "raw" and not shown.camera):
            return
        if len(self._frames) >= QUEUE:
            self.missed += 1
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
        try:
            while self._wait():
                self._write(self._frames.popleft())
            self._write(None)
        except CliprlError as error:
            self._fail(error)
        except Exception as error:
            self._fail(CliprlError(f"can't record in '{self._folder}' ({error}): choose another place"))

    def _write(self, frame: Frame | None) -> None:
        if frame is None:
            if self._segments:
                self._segments.finish()
            return
        info = self._info()
        if self._segments is None and info is not None:
            o = self._options
            self._segments = Segments(self._folder, self.kind, info, minutes=o.minutes, crf=o.crf, preset=o.preset)
        if self._segments is not None:
            self._segments.write(frame)

    def _append(self, frame: Frame | None) -> None:
        with self._changed:
            self._frames.append(frame)
            self._changed.notify_all()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._closed)
            return bool(self._frames)

    def _fail(self, error: CliprlError) -> None:
        with self._changed:
            self.error = error
            self._frames.clear()


def recordings(options: RecordOptions, info: Callable[[], StreamInfo | None]) -> tuple[Recording, ...]:
    """A recording for each kind that `options.what` names."""
    return tuple(Recording(kind, options, info) for kind in KINDS[options.what])
