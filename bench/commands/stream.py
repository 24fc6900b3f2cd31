"""`cliprl-bench stream`: file to file, as fast as it goes, beside the plain loop and the machine's own bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cliprl.bench.commands import stages
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction, TimedRun
from cliprl.bench.peers import cliprl_contender, find_peer, timed
from cliprl.pipeline.core.statistics import STAGES

PLAIN = "OpenCV + OpenVINO loop"
METHOD = {
    "includes": "opening input and output, decoding, the networks, drawing, x264 ultrafast, closing the file",
    "excludes": "starting Python, importing, compiling the networks, warm-up runs",
    "pace": "as fast as possible",
    "bound": "cores / CPU seconds a frame of the stages, each measured alone in the same rounds",
    "latency": "from the end of a frame's decoding to the end of its writing, queues included",
}


@measurement(
    "stream",
    help="File to file as fast as possible, beside an OpenCV loop with the same engine, and the share of the machine's bound.",
    defaults=BenchJob("", rounds=3, seconds=10, warm_up=2),
    suite={"stream": {}},
)
def measure(session: ResultSession, job: BenchJob, log: LogFunction) -> Result:
    """Measure rounds of the stages alone, the stream and the plain loop, in turn, each in a fresh process."""
    tasks: dict[str, Any] = {stages.ALONE: (stages.alone, (job,))}
    tasks |= {name: (timed, (find_peer(name).prepare, job)) for name in (cliprl_contender.NAME, PLAIN)}
    return session.rounds(tasks, job.rounds, log, lambda answers: session.result(series_of(answers), METHOD))


def series_of(answers: Mapping[str, Sequence[Sequence[TimedRun]]]) -> list[Series]:
    """All series of rounds by case: the stages alone, the stream, the plain loop; empty until each has an answer."""
    if len(answers) < 3:
        return []
    series = [
        *rate_series(answers, cliprl_contender.NAME),
        *frame_series(answers[cliprl_contender.NAME]),
        *efficiency(answers),
    ]
    series += [*rate_series(answers, PLAIN), *lead(answers, cliprl_contender.NAME, PLAIN)]
    return [*series, *stages.alone_series(answers[stages.ALONE])]


def rate_series(answers: Mapping[str, Sequence[Sequence[TimedRun]]], case: str, note: str = "") -> list[Series]:
    """Frames per second and busy processors, one sample per run."""
    fps = [[run.fps for run in runs] for runs in answers[case]]
    busy = [[run.cpu_seconds / run.seconds for run in runs] for runs in answers[case]]
    return [Series.of(case, "fps", "FPS", fps, note), Series.of(case, "processors at work", "cores", busy)]


def frame_series(rounds: Sequence[Sequence[TimedRun]], case: str = cliprl_contender.NAME) -> list[Series]:
    """Latency, steps and every stage of the stream, one sample per frame."""
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


def efficiency(answers: Mapping[str, Sequence[Sequence[TimedRun]]]) -> list[Series]:
    """The share of the bound that the stream reached, one sample per round."""
    reached = [stages.mean([run.fps for run in runs]) for runs in answers[cliprl_contender.NAME]]
    bound = stages.bounds(answers[stages.ALONE])
    shares = [[fps / most] for fps, most in zip(reached, bound, strict=True)]
    return [Series.of(cliprl_contender.NAME, "efficiency", "of bound", shares)]


def lead(answers: Mapping[str, Sequence[Sequence[TimedRun]]], case: str, other: str) -> list[Series]:
    """Ratio of the frames per second of two cases, one sample per round, in which both ran on the same machine."""
    pairs = zip(answers[case], answers[other], strict=True)
    times = [[stages.mean([r.fps for r in a]) / stages.mean([r.fps for r in b])] for a, b in pairs]
    return [Series.of(case, f"fps over {other}", "times", times)]
