"""`cliprl-bench stream`: file to file, as fast as it goes, beside the plain loop and the machine's own bound."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cliprl.bench.commands import stages
from cliprl.bench.harness.pairs import PairedRounds
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import LEAD, Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction, TimedRun
from cliprl.bench.peers import cliprl_contender, find_peer
from cliprl.pipeline.core.statistics import STAGES

PLAIN = "OpenCV + OpenVINO loop"
METHOD = {
    "includes": "opening input and output, decoding, the networks, drawing, x264 ultrafast, closing the file",
    "excludes": "starting Python, importing, compiling the networks, warm-up runs",
    "pace": "as fast as possible",
    "bound": "cores / CPU seconds a frame of the stages, measured in the same rounds while the other cores run the same",
    "pairs": "cliprl-stream takes turns with each other case, a few seconds each, in processes that stay ready",
    "latency": "from the end of a frame's decoding to the end of its writing, queues included",
}


@measurement(
    "stream",
    help="File to file as fast as possible, beside an OpenCV loop with the same engine, and the share of the machine's bound.",
    defaults=BenchJob("", rounds=5, seconds=4, warm_up=2),
    suite={"stream": {}},
)
def measure(session: ResultSession, job: BenchJob, log: LogFunction) -> Result:
    """Measure the stream in pairs with its stages, alone and beside a load, and with the plain loop."""
    others = {
        stages.BUSY: (stages.prepare_busy_stages, job),
        stages.ALONE: (stages.prepare_stages, job),
        PLAIN: (find_peer(PLAIN).prepare, job),
    }
    first = (cliprl_contender.prepare, job)
    return session.pairs(
        cliprl_contender.NAME, first, others, log, lambda answers: session.result(series_of(answers), METHOD)
    )


def series_of(answers: Mapping[str, PairedRounds]) -> list[Series]:
    """All series of the pairs measured so far: the stream in all of them, the efficiency, the plain loop, the stages."""
    own = own_rounds(answers)
    series = [*rate_series(own, cliprl_contender.NAME), work_series(own, cliprl_contender.NAME), *frame_series(own)]
    if stages.BUSY in answers:
        series += efficiency(answers[stages.BUSY])
    if PLAIN in answers:
        series += [*rate_series(answers[PLAIN].other, PLAIN), *pair_lead(answers[PLAIN], PLAIN)]
    if stages.ALONE in answers:
        series += stages.alone_series(answers[stages.ALONE].other)
    return series + (stages.busy_series(answers[stages.BUSY].other) if stages.BUSY in answers else [])


def own_rounds(answers: Mapping[str, PairedRounds]) -> list[list[TimedRun]]:
    """The rounds of `cliprl-stream` in all pairs."""
    return [runs for pair in answers.values() for runs in pair.first]


def rate_series(rounds: Sequence[Sequence[TimedRun]], case: str, note: str = "") -> list[Series]:
    """Frames per second, busy processors and, where the energy can be read, frames per watt: one sample per run."""
    fps = [[run.fps for run in runs] for runs in rounds]
    busy = [[run.cpu_seconds / run.seconds for run in runs] for runs in rounds]
    told = all(run.joules for runs in rounds for run in runs)
    watts = [[run.outcome.frames / (run.joules or math.nan) for run in runs] for runs in rounds] if told else []
    series = [Series.of(case, "fps", "FPS", fps, note), Series.of(case, "busy processors", "cores", busy)]
    return [*series, *([Series.of(case, "fps per watt", "FPS/W", watts)] if watts else [])]


def work_series(rounds: Sequence[Sequence[TimedRun]], case: str) -> Series:
    """CPU milliseconds a frame, one sample per run."""
    work = [[run.cpu_seconds / run.outcome.frames * 1000 for run in runs] for runs in rounds]
    return Series.of(case, "CPU work", "ms", work)


def frame_series(rounds: Sequence[Sequence[TimedRun]]) -> list[Series]:
    """Latency, steps and every stage of the stream, one sample per frame."""
    case = cliprl_contender.NAME
    series = [
        Series.of(case, cliprl_contender.LATENCY, "ms", stages.samples_by_round(rounds, cliprl_contender.LATENCY))
    ]
    series += [Series.of(case, stage, "ms", stages.samples_by_round(rounds, stage)) for stage in STAGES]
    return [
        *series,
        Series.of(
            case, "refinement steps", "mean", _means(stages.samples_by_round(rounds, cliprl_contender.STEPS_SERIES))
        ),
    ]


def _means(rounds: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[stages.mean(values)] for values in rounds]


def efficiency(pair: PairedRounds) -> list[Series]:
    """The share of the bound that the stream reached, one sample per round."""
    bound = stages.bounds(pair.other)
    shares = [[rate_of(runs) / most] for runs, most in zip(pair.first, bound, strict=True)]
    return [Series.of(cliprl_contender.NAME, "efficiency", "of bound", shares)]


def rate_of(runs: Sequence[TimedRun]) -> float:
    """The mean frames per second of the runs of a round."""
    return stages.mean([run.fps for run in runs])


def cpu_ratios(first: Sequence[Sequence[TimedRun]], other: Sequence[Sequence[TimedRun]]) -> list[list[float]]:
    """Ratio of the CPU time of a frame in two cases, one sample per round."""
    one, two = (
        [stages.mean([run.cpu_seconds / run.outcome.frames for run in runs]) for runs in r] for r in (first, other)
    )
    return [[a / b] for a, b in zip(one, two, strict=True)]


def pair_lead(pair: PairedRounds, other: str, case: str = cliprl_contender.NAME) -> list[Series]:
    """Ratio of the frames per second of a pair, one sample per round."""
    return lead({case: pair.first, other: pair.other}, case, other)


def lead(answers: Mapping[str, Sequence[Sequence[TimedRun]]], case: str, other: str) -> list[Series]:
    """Ratio of the frames per second of two cases, one sample per round, in which both ran on the same machine."""
    rounds = zip(answers[case], answers[other], strict=True)
    return [Series.of(case, f"{LEAD}{other}", "times", [[rate_of(a) / rate_of(b)] for a, b in rounds])]
