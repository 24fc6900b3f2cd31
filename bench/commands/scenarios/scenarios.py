"""`cliprl-bench scenarios`: the scenarios of MLPerf Inference with the pipeline as the system under test, and the accuracy run.

A sample is a decoded frame in memory, its answer the labels: field of view, network input, encoder and refinement, with the
stages of the stream in parallel; decoding, drawing and encoding of video are left out. Frames come in the clip's order, because
each result is the prior of the next; LoadGen would draw them at random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import typer

from cliprl.bench.commands.scenarios.load_generator import (
    MULTI_SAMPLES,
    MULTI_STREAM,
    OFFLINE,
    PERCENTILES,
    RULE_SECONDS,
    SCENARIOS,
    SERVER,
    Load,
    QuerySource,
    early_stopping_estimate,
    queries_needed,
    tolerated,
)
from cliprl.bench.harness.meters import EnergyMeter
from cliprl.bench.harness.registry import STREAM_OPTIONS, measurement, only_of
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction, TimedTask
from cliprl.engines import UsageError
from cliprl.pipeline import Frame, OutputSpec, Segmentation, Segmenter, Stream, open_sink, open_source
from cliprl.pipeline.sources import FrameSource

# Bytes of frames that the library holds in memory.
LIBRARY_BYTES = 128_000_000
# Limit on the server's 99th percentile, in milliseconds, and rates that are tried between nothing and Offline's.
SERVER_LIMIT, SERVER_TRIALS = 100.0, 5
ACCURACY = "accuracy run"
METHOD = {
    "includes": "frames in memory to labels: field of view, network input, encoder, refinement; stages in parallel",
    "excludes": "decoding, drawing, encoding of video, starting Python, compiling the networks, warm-up",
    "rules": f"MLPerf Inference: runs of at least {RULE_SECONDS:g} s; here scaled to seconds_a_round. Percentiles by early "
    "stopping with 99 % confidence. Samples in the clip's order instead of a random one: each result is the prior of the next",
    "server": f"Poisson arrivals from a seed; the largest of {SERVER_TRIALS} rates, by bisection, that keeps the 99th percentile "
    f"of the latency within {SERVER_LIMIT:g} ms",
    "accuracy": "labels of all frames of the library against the 32-bit reference of the same networks",
}


class _NoOverlay:
    """Draws nothing."""

    to_host = False

    def draw(self, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        """Leave the frame as it is."""


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """One run: latencies of the queries in ms, samples a second, the server's rate, and frames per watt, None if unknown."""

    latencies: Sequence[float]
    throughput: float
    rate: float = math.nan
    per_watt: float | None = None


class UnderTest:
    """The pipeline as the system under test, with a library of the clip's first frames."""

    def __init__(self, job: BenchJob) -> None:
        self._segmenter = Segmenter(job.bundle, steps=job.steps)
        self._source: FrameSource = open_source(job.clip)
        self.library = _library(self._source, job.frames)
        self._source.close()
        warm = self.run(Load(OFFLINE, 0.0, total=max(8, round(30 * min(job.warm_up, 4.0)))))
        self.rate = warm.throughput

    def run(self, load: Load) -> ScenarioRun:
        """Run a scenario once."""
        source = QuerySource(self.library, self._source, load)
        self._segmenter.reset()
        sink = open_sink("null:", OutputSpec(source.info, self._segmenter.classes))
        meter = EnergyMeter()
        Stream(source, self._segmenter, _NoOverlay(), [sink]).run(lambda frame, segmentation: source.complete())
        joules, answered = meter.joules(), len(source.answered)
        return ScenarioRun(
            source.latencies(), source.throughput(), load.rate or math.nan, answered / joules if joules else None
        )


def _library(source: FrameSource, most: int | None) -> list[Frame]:
    size = source.info.width * source.info.height * 3 // 2
    fitting = LIBRARY_BYTES // size
    count = max(min(most or fitting, fitting), 2)
    frames: list[Frame] = []
    while len(frames) < count and (frame := source.read()) is not None:
        frames.append(frame)
    if not frames:
        raise UsageError(f"{source.info.name} has no frame: choose another clip")
    return frames


def run_scenario(job: BenchJob, scenario: str, seed: int) -> ScenarioRun:
    """Measure one round of a scenario, in this process."""
    tested = UnderTest(job)
    if scenario == SERVER:
        return best_rate(lambda rate: tested.run(Load(SERVER, job.seconds, rate=rate, seed=seed)), tested.rate)
    total = max(round(tested.rate * job.seconds), 1) if scenario == OFFLINE else 0
    return tested.run(Load(scenario, job.seconds, MULTI_SAMPLES if scenario == MULTI_STREAM else 1, total=total))


def best_rate(run: Callable[[float], ScenarioRun], most: float) -> ScenarioRun:
    """Find the largest rate of arrivals that keeps the limit, by bisection up to `most`; the last run tried if none does."""
    low, high, best = 0.0, most, None
    for _ in range(SERVER_TRIALS):
        rate = (low + high) / 2
        tried = run(rate)
        if keeps_limit(tried.latencies):
            low, best = rate, tried
        else:
            high = rate
    return best or tried


def keeps_limit(latencies: Sequence[float]) -> bool:
    """Whether the 99th percentile is within the server's limit: by early stopping, or among fewer queries by the samples.

    No query shows nothing.
    """
    if not latencies:
        return False
    late = sum(value > SERVER_LIMIT for value in latencies)
    allowed = tolerated(len(latencies), PERCENTILES[SERVER])
    return late <= (allowed if allowed >= 0 else (1 - PERCENTILES[SERVER]) * len(latencies))


def accuracy_run(job: BenchJob) -> tuple[list[float], list[float]]:
    """Percent of cells with the label of the 32-bit reference, and the mean IoU of the reference's classes, for each frame."""
    with open_source(job.clip) as source:
        library = _library(source, job.frames)
    found = []
    for precision in ("auto", "f32"):
        segmenter = Segmenter(job.bundle, steps=job.steps, precision=precision)
        found.append([segmenter(frame).labels.copy() for frame in library])
    pairs = list(zip(*found, strict=True))
    return [100 * float((one == exact).mean()) for one, exact in pairs], [_mean_iou(one, exact) for one, exact in pairs]


def _mean_iou(labels: Any, exact: Any) -> float:
    shares = [
        float(((labels == c) & (exact == c)).sum() / ((labels == c) | (exact == c)).sum()) for c in np.unique(exact)
    ]
    return 100 * float(np.mean(shares))


@measurement(
    "scenarios",
    help="MLPerf Inference's SingleStream, MultiStream, Offline and Server on frames in memory, with the accuracy run.",
    defaults=BenchJob("", rounds=2, seconds=20, warm_up=2),
    settings=STREAM_OPTIONS,
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    names: Annotated[
        Sequence[str],
        typer.Option(
            "--scenario",
            callback=only_of("scenario", SCENARIOS),
            help=f"One of {', '.join(SCENARIOS)}; may be repeated.",
        ),
    ] = SCENARIOS,
    seed: Annotated[int, typer.Option(help="Seed of the server's arrivals.")] = 0,
) -> Result:
    """Measure every scenario in turn, each in a fresh process, and then the accuracy."""
    tasks: dict[str, TimedTask] = {name: (run_scenario, (job, name, seed)) for name in names}
    tasks[ACCURACY] = (accuracy_run, (job,))

    def make_result(answers: Answers) -> Result:
        found = [s for name in names if name in answers for s in scenario_series(name, answers[name])]
        if ACCURACY in answers:
            same, iou = answers[ACCURACY][0]
            found.append(Series.of(ACCURACY, "labels as f32", "%", [same]))
            found.append(Series.of(ACCURACY, "mean IoU with f32", "%", [iou]))
        notes = [validity(name, answers[name], job.seconds) for name in names if name in answers]
        return session.result(found, METHOD | {"seed": seed}, notes)

    return session.rounds(tasks, job.rounds, log, make_result)


def scenario_series(name: str, runs: Sequence[ScenarioRun]) -> list[Series]:
    """The series of one scenario, a round for each run."""
    series = []
    if name == OFFLINE:
        series.append(Series.of(name, "fps", "FPS", [[run.throughput] for run in runs]))
    else:
        percentile = PERCENTILES[name]
        bounds = [[early_stopping_estimate(run.latencies, percentile)] for run in runs]
        title = f"{100 * percentile:g}th percentile, early stopping"
        series += [
            Series.of(name, "latency", "ms", [run.latencies for run in runs]),
            Series.of(name, title, "ms", bounds),
        ]
    if name == SERVER:
        kept = [[run.rate if keeps_limit(run.latencies) else 0.0] for run in runs]
        series.insert(0, Series.of(name, "rate within the limit", "queries/s", kept))
    if watts := [[run.per_watt] for run in runs if run.per_watt is not None]:
        series.append(Series.of(name, "fps per watt", "FPS/W", watts))
    return series


def validity(name: str, runs: Sequence[ScenarioRun], seconds: float) -> str:
    """Tell in a sentence how the runs of a scenario compare with the rules."""
    scaled = (
        f"{name}: {seconds:g} s a run, {seconds / RULE_SECONDS:.2g} of the {RULE_SECONDS:g} s that the rules ask for"
    )
    if name == OFFLINE:
        return scaled
    counts, needed = [len(run.latencies) for run in runs], queries_needed(PERCENTILES[name])
    state = "enough" if min(counts) >= needed else "NOT enough"
    return f"{scaled}; {', '.join(map(str, counts))} queries, {state} for the percentile, which needs {needed}"
