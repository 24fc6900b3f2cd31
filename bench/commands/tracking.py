"""`cliprl-bench tracking`: the stream with `--ids` beside the stream without, in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cliprl.bench.commands import stages
from cliprl.bench.commands.stream import cpu_ratios, lead, rate_series
from cliprl.bench.harness.pairs import PairedRounds
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction, Runner, TaskOutcome, TimedRun
from cliprl.bench.peers import cliprl_contender
from cliprl.pipeline import OutputSpec, Overlay, Segmenter, Stream, open_sink, open_source
from cliprl.pipeline.core.statistics import STAGES
from cliprl.pipeline.tracking.segmenter import TrackingSegmenter

TRACKED = f"{cliprl_contender.NAME} --ids"
METHOD = {
    "includes": "opening input and output, decoding, the networks, tracking, drawing, x264 ultrafast, closing the file",
    "excludes": "starting Python, importing, compiling the networks, warm-up runs",
    "pace": "as fast as possible",
}


def prepare_tracked(job: BenchJob) -> Runner:
    """Make a runner that streams the clip as `--ids` does."""
    segmenter = Segmenter(job.bundle, steps=job.steps)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        collector = cliprl_contender.Collector((*STAGES, stages.TRACK))
        segmenter.reset()
        tracking = TrackingSegmenter(segmenter, segmenter.classes)
        with open_source(job.clip) as source:
            sink = open_sink(out, OutputSpec(source.info, segmenter.classes))
            stream = Stream(source, tracking, Overlay(segmenter.classes), [sink])
            count = stream.run(collector, frames=frames).frames
        return TaskOutcome(count, collector.samples)

    return run


@measurement(
    "tracking",
    help="File to file with and without ids of instruments, in turns: the ratio of the rates, and the time of tracking.",
    defaults=BenchJob("", rounds=5, seconds=4, warm_up=2),
)
def measure(session: ResultSession, job: BenchJob, log: LogFunction) -> Result:
    """Measure the stream with ids and the one without as a pair, in turns of a few seconds."""
    others = {cliprl_contender.NAME: (cliprl_contender.prepare, job)}

    def make_result(answers: Mapping[str, PairedRounds]) -> Result:
        pair = answers[cliprl_contender.NAME]
        return session.result(series_of({TRACKED: pair.first, cliprl_contender.NAME: pair.other}), METHOD)

    return session.pairs(TRACKED, (prepare_tracked, job), others, log, make_result)


def series_of(answers: Mapping[str, Sequence[Sequence[TimedRun]]]) -> list[Series]:
    """Both rates, their ratio, the ratio of CPU time, and the time of tracking; empty until both cases have an answer."""
    if len(answers) < 2:
        return []
    tracked = stages.samples_by_round(answers[TRACKED], stages.TRACK)
    ratios = cpu_ratios(answers[TRACKED], answers[cliprl_contender.NAME])
    return [
        *rate_series(answers[cliprl_contender.NAME], cliprl_contender.NAME),
        *rate_series(answers[TRACKED], TRACKED),
        *lead(answers, TRACKED, cliprl_contender.NAME),
        Series.of(TRACKED, f"CPU time over {cliprl_contender.NAME}", "times", ratios),
        Series.of(TRACKED, stages.TRACK, "ms", tracked),
    ]
