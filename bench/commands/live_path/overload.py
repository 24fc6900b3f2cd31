"""The live path with three tenths of a core: the true age of its frames, from a time code, and the age that it reports.

A camera on loopback numbers its frames. The live path runs in separate processes, all on one processor, which are stopped and
continued in turn so that they get `RUNNING_SHARE` of it. In the end the camera hangs up.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cliprl.bench.fixtures.timecoded_camera import LOOP, CodedCamera, coded_clip, number_in
from cliprl.bench.harness.result import Series
from cliprl.bench.harness.timing import BenchJob
from cliprl.engines import ClassSpec, CliprlError, open_bundle
from cliprl.pipeline import Frame, Overlay, Segmentation, Segmenter, Source, open_source
from cliprl.pipeline.live.broadcast import SourceState
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.stream import LiveStream

CASE = "overloaded reader"
RATE, RUNNING_SHARE = 25, 0.3
# One period of running and stopping, in seconds.
_TURN = 0.1
# Seconds to wait for the first frame, and to measure after the camera has hung up.
_FIRST, _AFTER = 120.0, 3.0
# Limits: frames older than OLD seconds are marked, and the displayed latency is correct to EXACT milliseconds.
OLD, EXACT = 1.0, 100.0


@dataclass(frozen=True, slots=True)
class ShownFrame:
    """A displayed camera frame: its true and its reported age in seconds, and the reported state."""

    moment: float
    age: float
    reported: float
    state: str

    @property
    def called_live(self) -> bool:
        """Whether it was not marked as late."""
        return self.state == SourceState.LIVE


@dataclass(frozen=True, slots=True)
class OverloadRun:
    """The frames displayed in `seconds` on an overloaded processor."""

    seconds: float
    frames: Sequence[ShownFrame]

    @property
    def fps(self) -> float:
        """Camera frames displayed a second."""
        return len(self.frames) / self.seconds

    @property
    def unmarked(self) -> float:
        """Percentage of the frames that were old and called live; 100 without frames."""
        old = sum(p.age > OLD and p.called_live for p in self.frames)
        return 100 * old / len(self.frames) if self.frames else 100.0

    @property
    def errors(self) -> list[float]:
        """The error of the reported latency of each frame, in milliseconds."""
        return [1000 * abs(p.reported - p.age) for p in self.frames]

    @property
    def error(self) -> float:
        """The 95th percentile of `errors`, in milliseconds."""
        errors = sorted(self.errors)
        return errors[math.ceil(0.95 * len(errors)) - 1] if errors else math.inf


def observe_overload(job: BenchJob, *, bundle: bool = True) -> OverloadRun:
    """Measure one run, after a first frame and the warm-up at full speed; without `bundle` nothing is segmented."""
    with tempfile.TemporaryDirectory() as folder:
        camera = CodedCamera(coded_clip(job.clip, RATE, Path(folder)), RATE)
        camera.start()
        try:
            with _viewer(camera.url, job.bundle if bundle else "", job.steps) as (process, lines):
                _wait_for(lines, process)
                time.sleep(job.warm_up)
                start = time.monotonic()
                _throttle(process.pid, start + job.seconds)
                camera.stop()
                _throttle(process.pid, start + job.seconds + _AFTER)
                return OverloadRun(job.seconds, [p for p in _aged(camera, tuple(lines)) if p.moment >= start])
        finally:
            camera.stop()


@contextmanager
def _viewer(url: str, bundle: str, steps: int | None) -> Iterator[tuple[subprocess.Popen[str], list[list[Any]]]]:
    """Run the live path in a separate process group, collect the lines that it writes, and kill it in the end."""
    program = "from cliprl.bench.commands.live_path.overload import show; import sys; show(*sys.argv[1:])"
    command = [sys.executable, "-c", program, url, bundle, "" if steps is None else str(steps)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    lines: list[list[Any]] = []

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(json.loads(line))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield process, lines
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        listener.join()


def _wait_for(lines: Sequence[Any], process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + _FIRST
    while not lines:
        if time.monotonic() > limit or process.poll() is not None:
            raise CliprlError("the live path displayed no frame: try the clip with cliprl-stream --web first")
        time.sleep(0.05)


def _throttle(group: int, until: float) -> None:
    """Let a process group run for `RUNNING_SHARE` of the time, until the moment `until`."""
    try:
        while time.monotonic() < until:
            os.killpg(group, signal.SIGCONT)
            time.sleep(RUNNING_SHARE * _TURN)
            os.killpg(group, signal.SIGSTOP)
            time.sleep((1 - RUNNING_SHARE) * _TURN)
    finally:
        os.killpg(group, signal.SIGCONT)


def _aged(camera: CodedCamera, lines: Sequence[Sequence[Any]]) -> Iterator[ShownFrame]:
    """Yield every frame with its age; numbers wrap around, and frames come in order."""
    index = -1
    for moment, number, reported, state in lines:
        if number is not None:
            index += 1 + (number - index - 1) % LOOP
            yield ShownFrame(moment, camera.age_of(index, moment), reported, state)


def show(url: str, bundle: str, steps: str) -> None:
    """Display in the throttled process, on one processor, and write a line for each displayed frame."""
    with suppress(AttributeError, OSError):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    source = open_source(url)
    camera = camera_of(source)
    classes = (
        open_bundle(bundle).manifest.mask_classes if bundle else (ClassSpec("background", (0, 0, 0), "background"),)
    )
    make_segmenter = partial(Segmenter, bundle, steps=int(steps) if steps else None) if bundle else None
    stream = LiveStream(camera, Overlay(classes), Supervisor(make_segmenter, len(classes)) if make_segmenter else None)

    def note(frame: Frame, segmentation: Segmentation | None) -> None:
        status = newest.status if (newest := stream.broadcast.newest) else None
        if status is not None and status.latency_ms is not None:
            seen = [status.displayed, number_in(frame.luma), status.latency_ms / 1000, status.state]
            print(json.dumps(seen), flush=True)

    with suppress(CliprlError):
        stream.run(note)


def camera_of(source: Source) -> LiveCapture:
    """Return the camera of a source that is not opened again when it ends."""
    return LiveCapture(lambda: source, source, name="camera", reconnect=False)


def series(runs: Sequence[OverloadRun]) -> list[Series]:
    """The series of the runs."""
    return [
        Series.of(CASE, "frame rate", "FPS", [[run.fps] for run in runs]),
        Series.of(CASE, "age", "ms", [[1000 * p.age for p in run.frames] for run in runs]),
        Series.of(CASE, f"older than {OLD:g} s and called live", "%", [[run.unmarked] for run in runs]),
        Series.of(CASE, "error of the latency shown", "ms", [run.errors or [math.inf] for run in runs]),
    ]


def broken(runs: Sequence[OverloadRun]) -> list[str]:
    """The limits that the runs broke."""
    found = [f"{CASE}: {run.unmarked:.1f} % old and called live" for run in runs if run.unmarked > 0]
    return found + [f"{CASE}: latency wrong by {run.error:.0f} ms" for run in runs if not run.error <= EXACT]
