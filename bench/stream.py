"""`cliprl-bench stream`: file to file, as fast as it goes, beside the plain loop and the machine's own bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cliprl.bench import ours, peers, stages
from cliprl.bench.job import Job, Run, Say
from cliprl.bench.result import Result, Series
from cliprl.bench.session import Session
from cliprl.pipeline.summary import STAGES

PLAIN = "OpenCV + OpenVINO loop"
METHOD = {
    "includes": "opening input and output, decoding, the networks, drawing, x264 ultrafast, closing the file",
    "excludes": "starting Python, importing, compiling the networks, warm-up runs",
    "pace": "as fast as possible",
    "bound": "cores / CPU seconds a frame of the stages, each measured alone in the same rounds",
    "latency": "from the end of a frame's decoding to the end of its writing, queues included",
}


def measure(session: Session, job: Job, say: Say) -> Result:
    """Rounds of the stages alone, the stream and the plain loop, in turn, each in a fresh process."""
    tasks: dict[str, Any] = {stages.ALONE: (stages.alone, (job,))}
    tasks |= {name: (peers.timed, (name, job)) for name in (ours.NAME, PLAIN)}
    return session.rounds(tasks, job.rounds, say, lambda answers: session.result(series_of(answers), METHOD))


def series_of(answers: Mapping[str, Sequence[Sequence[Run]]]) -> list[Series]:
    """All series of rounds by case: the stages alone, the stream, the plain loop; nothing where one is still to come."""
    if len(answers) < 3:
        return []
    series = [*rate_series(answers, ours.NAME), *frame_series(answers[ours.NAME]), *efficiency(answers)]
    series += [*rate_series(answers, PLAIN), *lead(answers, ours.NAME, PLAIN)]
    return [*series, *stages.alone_series(answers[stages.ALONE])]


def rate_series(answers: Mapping[str, Sequence[Sequence[Run]]], case: str, note: str = "") -> list[Series]:
    """Frames per second and processors at work, a sample a run."""
    fps = [[run.fps for run in runs] for runs in answers[case]]
    busy = [[run.cpu_seconds / run.seconds for run in runs] for runs in answers[case]]
    return [Series.of(case, "fps", "FPS", fps, note), Series.of(case, "processors at work", "cores", busy)]


def frame_series(rounds: Sequence[Sequence[Run]], case: str = ours.NAME) -> list[Series]:
    """Latency, steps and every stage of the stream, a sample a frame."""
    series = [Series.of(case, ours.LATENCY, "ms", stages.samples(rounds, ours.LATENCY))]
    series += [Series.of(case, stage, "ms", stages.samples(rounds, stage)) for stage in STAGES]
    return [*series, Series.of(case, "refinement steps", "mean", _means(stages.samples(rounds, ours.STEPS)))]


def _means(rounds: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[stages.mean(values)] for values in rounds]


def efficiency(answers: Mapping[str, Sequence[Sequence[Run]]]) -> list[Series]:
    """The share of the bound that the stream reached, a sample a round."""
    reached = [stages.mean([run.fps for run in runs]) for runs in answers[ours.NAME]]
    bound = stages.bounds(answers[stages.ALONE])
    shares = [[fps / most] for fps, most in zip(reached, bound, strict=True)]
    return [Series.of(ours.NAME, "efficiency", "of bound", shares)]


def lead(answers: Mapping[str, Sequence[Sequence[Run]]], case: str, other: str) -> list[Series]:
    """How many times the other's frames per second, a sample a round: both met the same machine in it."""
    pairs = zip(answers[case], answers[other], strict=True)
    times = [[stages.mean([r.fps for r in a]) / stages.mean([r.fps for r in b])] for a, b in pairs]
    return [Series.of(case, f"fps over {other}", "times", times)]
