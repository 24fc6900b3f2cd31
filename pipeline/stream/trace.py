"""Writes a trace of a run for chrome://tracing or ui.perfetto.dev: each stage of each frame on its thread."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.atomic_file import PartialFile

# Each stage and the key of `Frame.times` that holds its end.
STAGE_MARKS = {"decode": "captured"} | {stage: stage for stage in ("prepare", "encode", "refine", "draw", "write")}
_OUTPUT = "output"
# Number of events per write.
_BUFFERED = 256


class Trace:
    """Writes the trace of a stream to a JSON file, frame by frame; call it with each frame that was written (`on_frame`).

    A stage is a slice in the row of its thread. The time of a frame from decoded to written is a row under "frame", where waiting
    shows as a gap. Times are microseconds of the monotonic clock. A context manager: leaving it finishes the file. Raises
    UsageError if the file cannot be created. If it cannot be written the run goes on, and leaving it raises CliprlError, with
    the text of the run's own error first.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lanes: dict[str, int] = {}
        self._first = True
        self._traced = False
        self._file = PartialFile(self.path)
        self.notes = self._file.notes
        self._text: list[str] = []
        self._closed = False
        self._error: CliprlError | None = None
        self._write('{"displayTimeUnit": "ms", "traceEvents": [')
        self._event(_event("M", "process_name", 0, 0) | {"args": {"name": "cliprl-stream"}})

    def __call__(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Add a frame that has completed all stages."""
        self._traced = True
        for event in frame_events(frame, segmentation, self._lane):
            self._event(event)

    def _lane(self, thread: str) -> int:
        """Return the row number of a thread; the first use writes its name."""
        if thread not in self._lanes:
            self._lanes[thread] = lane = len(self._lanes) + 1
            self._event(_event("M", "thread_name", 0, lane) | {"args": {"name": thread}})
        return self._lanes[thread]

    def _event(self, event: dict[str, Any]) -> None:
        self._write(("\n" if self._first else ",\n") + json.dumps(event))
        self._first = False

    def _write(self, text: str) -> None:
        self._text.append(text)
        if len(self._text) >= _BUFFERED:
            self._flush()

    def _flush(self) -> None:
        data, self._text = "".join(self._text).encode(), []
        try:
            self._file.write(data)  # nothing after an error
        except OSError as error:
            self._error = self._broken(error)

    def _broken(self, error: OSError) -> CliprlError:
        return CliprlError(
            f"writing the trace '{self.path}' failed ({error.strerror or error}): free some space, or leave --trace out"
        )

    def close(self) -> None:
        """Finish the file; without a frame nothing is left. Calling it twice is harmless.

        Raises CliprlError if the file is incomplete.
        """
        if self._closed:
            return
        self._closed = True
        if not self._traced:
            self._file.discard()
            return
        self._text.append("\n]}\n")
        self._flush()
        try:
            if self._error is None:
                self._file.publish()
        except OSError as error:
            self._error = self._broken(error)
        finally:
            self._file.keep()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except CliprlError as failed:
            if not isinstance(error, CliprlError):
                raise
            raise type(error)(f"{error}; {failed}") from error


def frame_events(
    frame: Frame, segmentation: Segmentation | None, lane: Callable[[str], int]
) -> Iterator[dict[str, Any]]:
    """Yield the trace events of one frame: a slice per stage in the row `lane(thread)`, and one for the whole frame."""
    about = {"frame": frame.index, "pts": frame.pts}
    if segmentation is not None:
        about["steps"] = segmentation.steps
    for stage, mark in STAGE_MARKS.items():
        if stage in frame.durations and mark in frame.times:
            length = frame.durations[stage]
            start = frame.times[mark] - length
            thread = frame.threads[stage]
            name = _OUTPUT if thread == threading.main_thread().name else thread
            yield _event("X", stage, start, lane(name)) | {"dur": length * 1e6, "args": about}
    if {"captured", "write"} <= frame.times.keys():
        for phase, mark in (("b", "captured"), ("e", "write")):
            way = _event(phase, "frame", frame.times[mark], 0)
            yield way | {"cat": "frame", "id": frame.index, "args": about}


def _event(phase: str, name: str, seconds: float, lane: int) -> dict[str, Any]:
    return {"ph": phase, "name": name, "ts": seconds * 1e6, "pid": os.getpid(), "tid": lane}
