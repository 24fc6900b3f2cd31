"""`cliprl-bench live`: frames that come when they come, as from a camera: drops, latency under load, deadlines missed."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cliprl.bench import ours
from cliprl.bench.job import WARM_FRAMES, Job, Say, interleaved
from cliprl.bench.repeated import PacedSource
from cliprl.bench.result import Result, Series
from cliprl.bench.session import Session
from cliprl.pipeline import Frame, Segmentation, Segmenter, open_source

RATES = (25, 30, 60, 120)
# Surgeons' performance falls at 105 ms of added latency (29 surgeons; see the README).
DEADLINE_MS = 100.0
# A rate at which more than this share of the frames is lost is beyond saturation.
LOSS = 0.01
STAGES = ("read", "prepare", "encode", "refine", "draw", "write")
METHOD = {
    "includes": "latency from the moment a frame is due to the end of its writing: decoding, queues and x264 ultrafast inside",
    "excludes": "starting Python, compiling the networks, the first seconds of each run",
    "pace": "a clip repeated at a fixed rate; the ring drops its oldest frame; a driver's queue of 4 frames before it",
}


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One run at one rate: seconds measured, frames due in them, frames of these that were lost, and the samples of the rest."""

    seconds: float
    offered: int
    lost: int
    samples: Mapping[str, list[float]]


class _Settled(ours.Collector):
    """Collects from frame `first` of the source on."""

    def __init__(self, first: int) -> None:
        super().__init__(STAGES, since="due")
        self._first = first

    def __call__(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Note a frame that was written, unless it came during the warm-up."""
        if frame.index >= self._first:
            super().__call__(frame, segmentation)


def one_rate(rate: int, job: Job) -> LiveRun:
    """One run at `rate` frames a second, in this process."""
    segmenter = Segmenter(job.bundle, steps=job.steps)
    with open_source(job.clip) as clip:
        ours.stream_once(clip, segmenter, "null:", ours.Collector(), WARM_FRAMES)
    first, last = round(job.warm_up * rate), round((job.warm_up + job.seconds) * rate)
    collector = _Settled(first)
    with tempfile.TemporaryDirectory() as folder, PacedSource(job.clip, rate, last) as source:
        ours.stream_once(source, segmenter, Path(folder) / "out.mp4", collector)
    written = len(collector.samples[ours.LATENCY])
    return LiveRun((last - first) / rate, last - first, last - first - written, collector.samples)


def measure(session: Session, job: Job, say: Say, rates: Sequence[int] = RATES) -> Result:
    """Every rate in turn, a fresh process each."""
    tasks = {_case(rate): (one_rate, (rate, job)) for rate in rates}
    answers: dict[str, list[LiveRun]] = interleaved(tasks, job.rounds, say)
    series = [s for rate in rates for s in rate_series(rate, answers[_case(rate)])]
    return session.result(series, METHOD | {"deadline_ms": DEADLINE_MS}, [saturation(rates, answers)])


def _case(rate: int) -> str:
    return f"{rate} FPS"


def rate_series(rate: int, runs: Sequence[LiveRun]) -> list[Series]:
    """What came of one rate."""
    case, latencies = _case(rate), [run.samples[ours.LATENCY] for run in runs]
    missed = [[100 * sum(v > DEADLINE_MS for v in values) / max(1, len(values))] for values in latencies]
    delivered = [[(run.offered - run.lost) / run.seconds] for run in runs]
    series = [
        Series.of(case, "delivered", "FPS", delivered),
        Series.of(case, "lost", "%", [[100 * run.lost / run.offered] for run in runs]),
        Series.of(case, f"later than {DEADLINE_MS:g} ms", "%", missed),
        Series.of(case, ours.LATENCY, "ms", latencies),
    ]
    return series + [Series.of(case, stage, "ms", [run.samples[stage] for run in runs]) for stage in STAGES]


def saturation(rates: Sequence[int], answers: Mapping[str, Sequence[LiveRun]]) -> str:
    """A sentence on the rate from which frames are lost."""
    for rate in sorted(rates):
        runs = answers[_case(rate)]
        lost = sum(run.lost for run in runs) / sum(run.offered for run in runs)
        if lost > LOSS:
            delivered = sum((run.offered - run.lost) / run.seconds for run in runs) / len(runs)
            return f"saturates below {rate} FPS: there {lost:.0%} of the frames are lost and {delivered:.1f} a second come out"
    return f"keeps up with every rate tried, to {max(rates)} FPS"
