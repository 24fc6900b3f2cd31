"""`cliprl-bench soak`: find leaks in a long run. Linux only: sizes are read from /proc/self.

Latency, resident memory, open files and threads are read every few frames. The leak is the slope of memory over frames after
the first part of the run, by medians, so that one late allocation is no leak and steady growth shows in any noise.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import typer

from cliprl.bench.fixtures.looped_source import RepeatedSource
from cliprl.bench.harness import stats
from cliprl.bench.harness.meters import resident
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import send_value
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction
from cliprl.bench.peers import cliprl_contender
from cliprl.pipeline import Frame, OutputSpec, Overlay, Segmentation, Segmenter, Source, Stream, open_sink
from cliprl.pipeline.tracking.segmenter import TrackingSegmenter

# The share of a run that may still be filling buffers and caches.
SETTLING = 0.25
# Bytes a frame: 20,000 frames may grow by 10 MB, half the growth of a leak of 1 KB a frame.
LEAK = 500.0
# Default length of a run, in frames.
SOAK_FRAMES = 20_000
# In fewer frames an allocator's fluctuation is as large as a leak.
LEAST_FRAMES = 5000
MEGABYTE = 1e6
# Readings in a run of any length.
READINGS = 400
METHOD = {
    "includes": "one run of the default pipeline; memory is the resident set of the whole process",
    "excludes": f"the slope leaves out the first {SETTLING:.0%} of the frames",
    "leak": f"memory that grows by more than {LEAK:g} bytes a frame in both halves of the rest",
}


# Frames so far, megabytes, open files, threads, milliseconds.
Reading = tuple[int, float, int, int, float]


@dataclass
class MemoryGrowth:
    """Readings by frame: `frames` counts, megabytes, open files, threads, and the median latency in ms since the last one."""

    frames: list[int] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    handles: list[float] = field(default_factory=list)
    threads: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, readings: Sequence[Reading]) -> MemoryGrowth:
        """Collect the readings."""
        columns: Any = zip(*readings, strict=True)
        return cls(*map(list, columns))

    def slopes(self) -> tuple[float, float]:
        """Bytes a frame in the first and in the second half of the settled run; NaN if it was too short."""
        settled = len(self.frames) - int(len(self.frames) * SETTLING)
        half = settled // 2
        first, last = slice(-settled, -half), slice(-half, None)
        if half < 4 or self.frames[-1] < LEAST_FRAMES:
            return math.nan, math.nan
        a, b = (theil_sen(self.frames[part], self.memory[part]) * MEGABYTE for part in (first, last))
        return a, b

    def leaks(self) -> bool:
        """Whether memory grows steadily; a buffer that fills once is no leak."""
        return min(self.slopes()) > LEAK

    def verdict(self) -> str:
        """Describe the finding in a sentence."""
        slopes = self.slopes()
        if math.isnan(slopes[0]):
            return f"too short to tell a leak: {max(self.frames, default=0)} frames, at least {LEAST_FRAMES} are needed"
        shown = " and ".join(f"{slope:+.0f}" for slope in slopes)
        return f"{'LEAK' if self.leaks() else 'no leak'}: memory grows by {shown} bytes a frame in the two halves of the run"


class Soaker:
    """Takes a reading every `every` frames of a stream (`on_frame`)."""

    def __init__(self, every: int) -> None:
        self.readings: list[Reading] = []
        self._every, self._count = every, 0
        self._latencies: list[float] = []

    def __call__(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Note a frame that was written."""
        self._count += 1
        self._latencies.append(frame.elapsed("captured", "write") * 1000)
        if self._count % self._every == 0:
            handles, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
            reading = (self._count, resident(), handles, threads, float(np.median(self._latencies)))
            self.readings.append(reading)
            send_value(reading)
            self._latencies.clear()


def theil_sen(x: Sequence[float], y: Sequence[float]) -> float:
    """The median of the slopes between all pairs of points: a robust fit that outliers can't tilt."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    i, j = np.triu_indices(len(xs), 1)
    return float(np.median((ys[j] - ys[i]) / (xs[j] - xs[i])))


def soak(
    source: Source, segmenter: Segmenter | None, output: str, frames: int, follow: str | None = None
) -> MemoryGrowth:
    """Stream `frames` frames of a source into one output, in this process; `follow` is an instrument to follow."""
    classes = segmenter.classes if segmenter else ()
    soaker = Soaker(max(1, frames // READINGS))
    sink = open_sink(output, OutputSpec(source.info, classes))
    overlay = Overlay(classes) if segmenter else None
    tracking = segmenter if segmenter is None or follow is None else TrackingSegmenter(segmenter, classes, follow)
    Stream(source, tracking, overlay, [sink]).run(soaker, frames=frames)
    return MemoryGrowth.of(soaker.readings)


def soak_clip(job: BenchJob, output: str, frames: int, follow: str | None = None) -> MemoryGrowth:
    """Run the whole pipeline on a looped clip."""
    source = RepeatedSource(job.clip)
    return soak(source, Segmenter(job.bundle, steps=job.steps), output, frames, follow)


@measurement(
    "soak",
    help="One long run of a repeated clip: does latency, memory, the number of open files or of threads grow?",
    defaults=BenchJob("", rounds=1, seconds=0, warm_up=0),
    settings=("bundle", "steps"),
    suite={"soak": {}},
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    length: Annotated[int, typer.Option("--frames", min=100, help="Frames to run.")] = SOAK_FRAMES,
    target: Annotated[str, typer.Option(help="A sink, as for cliprl-stream.")] = "null:",
    follow: Annotated[
        str | None, typer.Option(help="Follow an instrument, as cliprl-stream does.", show_default="none")
    ] = None,
) -> Result:
    """Measure one long run in a fresh process."""
    start = time.monotonic()

    def make_result(answers: Answers) -> Result:
        growth: MemoryGrowth = answers[cliprl_contender.NAME][0]
        seconds, every = time.monotonic() - start, max(1, length // READINGS)
        lasted = f"{growth.frames[-1]} of {length} frames in {seconds:.0f} s, one reading every {every} frames"
        return session.result(growth_series(growth), METHOD, [growth.verdict(), lasted])

    return session.rounds(
        {cliprl_contender.NAME: (soak_clip, (job, target, length, follow))}, 1, log, make_result, MemoryGrowth.of
    )


def growth_series(growth: MemoryGrowth) -> list[Series]:
    """All readings, and the slopes."""
    case = cliprl_contender.NAME
    return [
        Series.of(case, "memory", "MB", [growth.memory]),
        Series.of(case, "growth", "bytes a frame", [growth.slopes()]),
        Series.of(case, "open files", "files", [growth.handles]),
        Series.of(case, "threads", "threads", [growth.threads]),
        Series.of(case, cliprl_contender.LATENCY, "ms", [growth.latency]),
        Series.of(case, "latency drift", "%", [[100 * stats.drift([growth.latency])]]),
    ]
