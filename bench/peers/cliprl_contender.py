"""The pipeline as a peer: `cliprl-stream CLIP` with its defaults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from cliprl.bench.harness.timing import BenchJob, Runner, TaskOutcome
from cliprl.bench.peers import peer
from cliprl.pipeline import Frame, OutputSpec, Overlay, Segmentation, Segmenter, Source, Stream, open_sink, open_source
from cliprl.pipeline.core.statistics import STAGES

NAME = "cliprl-stream"
LATENCY = "latency"
STEPS_SERIES = "steps"


class Collector:
    """Collects the samples of a run: milliseconds of each stage, latency from `since` to written, refinement steps."""

    def __init__(self, stages: Sequence[str] = STAGES, since: str = "captured") -> None:
        self.samples: dict[str, list[float]] = {name: [] for name in (*stages, LATENCY, STEPS_SERIES)}
        self._stages, self._since = stages, since

    def __call__(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Record a written frame."""
        for stage in self._stages:
            self.samples[stage].append(frame.durations.get(stage, math.nan) * 1000)
        self.samples[LATENCY].append(frame.elapsed(self._since, "write") * 1000)
        self.samples[STEPS_SERIES].append(segmentation.steps if segmentation else math.nan)


@peer(NAME, "its defaults")
def prepare(job: BenchJob) -> Runner:
    """Compile the networks; a run then opens the clip and the output, streams, and closes both."""
    segmenter = Segmenter(job.bundle, steps=job.steps)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        collector = Collector()
        with open_source(job.clip) as source:
            count = stream_once(source, segmenter, out, collector, frames)
        return TaskOutcome(count, collector.samples)

    return run


def stream_once(
    source: Source, segmenter: Segmenter, out: str | Path, collector: Collector, frames: int | None = None
) -> int:
    """Stream a source once, painted, into one output; returns the frames written."""
    segmenter.reset()
    sink = open_sink(out, OutputSpec(source.info, segmenter.classes))
    stream = Stream(source, segmenter, Overlay(segmenter.classes), [sink])
    return stream.run(collector, frames=frames).frames
