"""The live path at three tenths of a core: how old its pictures are, read off a clock in them, and what it says of that.

A camera on loopback numbers its pictures. The live path runs in processes of its own, all on one processor, which are stopped
and continued in turn so that they get `SHARE` of it. In the end the camera hangs up.
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
RATE, SHARE = 25, 0.3
# One turn of running and stopping, in seconds.
_TURN = 0.1
# Seconds until the first picture, and those that are watched after the camera has hung up.
_FIRST, _AFTER = 120.0, 3.0
# What is promised: pictures older than this many seconds are marked, and the latency shown is true to so many milliseconds.
OLD, EXACT = 1.0, 100.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A picture of the camera's as it was displayed: its true age and the one that was told in seconds, and the state told."""

    moment: float
    age: float
    told: float
    state: str

    @property
    def is_called_live(self) -> bool:
        """Whether nothing says that it is late."""
        return self.state == SourceState.LIVE


@dataclass(frozen=True, slots=True)
class Overload:
    """What was displayed in `seconds` of too little of a processor."""

    seconds: float
    pictures: Sequence[Seen]

    @property
    def fps(self) -> float:
        """Camera frames displayed a second."""
        return len(self.pictures) / self.seconds

    @property
    def unmarked(self) -> float:
        """Per cent of the pictures that were old and called live; all, where there were none."""
        old = sum(p.age > OLD and p.is_called_live for p in self.pictures)
        return 100 * old / len(self.pictures) if self.pictures else 100.0

    @property
    def errors(self) -> list[float]:
        """By how many milliseconds the latency that was told was wrong, of each picture."""
        return [1000 * abs(p.told - p.age) for p in self.pictures]

    @property
    def error(self) -> float:
        """The error that 95 % of the pictures keep within, in milliseconds."""
        errors = sorted(self.errors)
        return errors[math.ceil(0.95 * len(errors)) - 1] if errors else math.inf


def observe(job: BenchJob, *, bundle: bool = True) -> Overload:
    """One run, after a first picture and the warm-up at full speed; without `bundle` nothing is segmented."""
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
                return Overload(job.seconds, [p for p in _aged(camera, tuple(lines)) if p.moment >= start])
        finally:
            camera.stop()


@contextmanager
def _viewer(url: str, bundle: str, steps: int | None) -> Iterator[tuple[subprocess.Popen[str], list[list[Any]]]]:
    """The live path in a process group of its own, and the lines that it writes; killed in the end."""
    program = "from cliprl.bench.commands.overload import show; import sys; show(*sys.argv[1:])"
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
            raise CliprlError("the live path gave no picture: try the clip with cliprl-stream --web first")
        time.sleep(0.05)


def _throttle(group: int, until: float) -> None:
    """Let a process group run for `SHARE` of the time, until the moment `until`."""
    try:
        while time.monotonic() < until:
            os.killpg(group, signal.SIGCONT)
            time.sleep(SHARE * _TURN)
            os.killpg(group, signal.SIGSTOP)
            time.sleep((1 - SHARE) * _TURN)
    finally:
        os.killpg(group, signal.SIGCONT)


def _aged(camera: CodedCamera, lines: Sequence[Sequence[Any]]) -> Iterator[Seen]:
    """Every picture with its age; numbers start again, and pictures come in order."""
    index = -1
    for moment, number, told, state in lines:
        if number is not None:
            index += 1 + (number - index - 1) % LOOP
            yield Seen(moment, camera.age_of(index, moment), told, state)


def show(url: str, bundle: str, steps: str) -> None:
    """Called in the process that is slowed: display, on one processor, and write what was displayed, a line each."""
    with suppress(AttributeError, OSError):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    source = open_source(url)
    camera = LiveCapture(partial(_never, source), source, name="camera", reconnect=False)
    classes = open_bundle(bundle).manifest.classes if bundle else (ClassSpec("background", (0, 0, 0), "background"),)
    make_segmenter = partial(Segmenter, bundle, steps=int(steps) if steps else None) if bundle else None
    stream = LiveStream(camera, Overlay(classes), Supervisor(make_segmenter, len(classes)) if make_segmenter else None)

    def note(frame: Frame, segmentation: Segmentation | None) -> None:
        status = newest.status if (newest := stream.broadcast.newest) else None
        if status is not None and status.latency_ms is not None:
            seen = [status.displayed, number_in(frame.luma), status.latency_ms / 1000, status.state]
            print(json.dumps(seen), flush=True)

    with suppress(CliprlError):
        stream.run(note)


def _never(source: Source) -> Source:
    raise CliprlError(f"{source.info.name} has ended")


def series(runs: Sequence[Overload]) -> list[Series]:
    """What is told of one."""
    return [
        Series.of(CASE, "frame rate", "FPS", [[run.fps] for run in runs]),
        Series.of(CASE, "age", "ms", [[1000 * p.age for p in run.pictures] for run in runs]),
        Series.of(CASE, f"older than {OLD:g} s and called live", "%", [[run.unmarked] for run in runs]),
        Series.of(CASE, "error of the latency shown", "ms", [run.errors or [math.inf] for run in runs]),
    ]


def broken(runs: Sequence[Overload]) -> list[str]:
    """What of the promises did not hold."""
    found = [f"{CASE}: {run.unmarked:.1f} % old and called live" for run in runs if run.unmarked > 0]
    return found + [f"{CASE}: latency wrong by {run.error:.0f} ms" for run in runs if not run.error <= EXACT]
