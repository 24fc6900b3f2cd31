"""A run as a picture: every stage of every frame on the thread that did it, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.segmentation import Segmentation

# The thread that works on each stage, and the mark at which the stage ended (see `Stream`).
THREADS = {
    "decode": ("decode", "captured"),
    "prepare": ("prepare", "prepare"),
    "encode": ("encode", "encode"),
    "refine": ("refine", "refine"),
    "draw": ("output", "draw"),
    "write": ("output", "write"),
}
_LANES = {name: i + 1 for i, name in enumerate(dict.fromkeys(thread for thread, _ in THREADS.values()))}


class Trace:
    """Writes the trace of a stream to a JSON file, frame by frame; call it with each frame that was written (`on_frame`).

    A stage is a slice on its thread's line, a frame's whole way from decoded to written a line of its own under "frame", so
    that waiting shows as a gap. Times are microseconds since the machine's monotonic clock began. A context manager: leaving it
    finishes the file. Raises UsageError where the file can't be made, CliprlError where it can't be written to its end.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._first = True
        try:
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"'{path}' can't be written ({error.strerror}): choose another place for the trace"
            ) from error
        self._write('{"displayTimeUnit": "ms", "traceEvents": [')
        for event in _names():
            self._event(event)

    def __call__(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Add a frame that has passed every stage."""
        for event in frame_events(frame, segmentation):
            self._event(event)

    def _event(self, event: dict[str, Any]) -> None:
        self._write(("\n" if self._first else ",\n") + json.dumps(event))
        self._first = False

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> CliprlError:
        return CliprlError(
            f"writing the trace '{self.path}' failed ({error.strerror}): free some space, or leave --trace out"
        )

    def close(self) -> None:
        """Finish the file. Calling it twice is harmless."""
        if self._file.closed:
            return
        try:
            self._file.write("\n]}\n")
            self._file.close()
        except OSError as error:
            raise self._broken(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def frame_events(frame: Frame, segmentation: Segmentation | None) -> Iterator[dict[str, Any]]:
    """The trace events of one frame: a slice for each stage that it passed, and its way as a whole."""
    about = {"frame": frame.index, "pts": frame.pts}
    if segmentation is not None:
        about["steps"] = segmentation.steps
    for stage, (thread, mark) in THREADS.items():
        if stage in frame.durations and mark in frame.times:
            length = frame.durations[stage]
            start = frame.times[mark] - length
            yield _event("X", stage, start, _LANES[thread]) | {"dur": length * 1e6, "args": about}
    if {"captured", "write"} <= frame.times.keys():
        for phase, mark in (("b", "captured"), ("e", "write")):
            way = _event(phase, "frame", frame.times[mark], 0)
            yield way | {"cat": "frame", "id": frame.index, "args": about}


def _event(phase: str, name: str, seconds: float, lane: int) -> dict[str, Any]:
    return {"ph": phase, "name": name, "ts": seconds * 1e6, "pid": os.getpid(), "tid": lane}


def _names() -> Iterator[dict[str, Any]]:
    """What the lines of the picture are called."""
    yield _event("M", "process_name", 0, 0) | {"args": {"name": "cliprl-stream"}}
    for thread, lane in _LANES.items():
        yield _event("M", "thread_name", 0, lane) | {"args": {"name": thread}}
