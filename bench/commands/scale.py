"""`cliprl-bench scale`: rate and CPU time of a frame by resolution, number of streams, refinement steps and classes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from cliprl.bench.commands.stream import rate_series, work_series
from cliprl.bench.harness.clips import clip_file
from cliprl.bench.harness.registry import TIMING_OPTIONS, measurement, only_of
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import in_fresh_process
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction, Runner, TaskOutcome, TimedRun, timed_runs
from cliprl.bench.peers import cliprl_contender
from cliprl.engines import Bundle, open_bundle
from cliprl.pipeline import Segmenter, open_source

FRAME_SIZES = ("640x360", "1280x720", "1920x1080", "3840x2160")
STREAMS = (1, 2, 3)
STEP_COUNTS = (0, 1, 2, 4)
CLASS_COUNTS = (2, 12, 32, 64)
# Seconds that the streams of one round wait for each other's networks.
SETUP_SECONDS = 300.0
AXES = ("resolution", "streams", "steps", "classes")
METHOD = {
    "includes": "as `stream`: file to file, as fast as possible",
    "excludes": "starting Python, compiling the networks, warm-up runs",
    "cases": "resolution: rendered clips; streams: parallel processes, their frames added; classes: more text rows",
}


def with_class_count(bundle: Bundle, count: int) -> Bundle:
    """The bundle with `count` classes: its classes, repeated or cut; the networks take any number."""
    picks = [i % len(bundle.manifest.classes) for i in range(count)]
    specs = [replace(bundle.manifest.classes[pick], name=f"class {i}") for i, pick in enumerate(picks)]
    embeddings = np.ascontiguousarray(bundle.embeddings[picks])
    return replace(bundle, manifest=replace(bundle.manifest, classes=tuple(specs)), embeddings=embeddings)


def classes_round(job: BenchJob, count: int) -> list[TimedRun]:
    """Measure one round with `count` classes, in this process."""
    segmenter = Segmenter(with_class_count(open_bundle(job.bundle), count), steps=job.steps)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        with open_source(job.clip) as source:
            return TaskOutcome(
                cliprl_contender.stream_once(source, segmenter, out, cliprl_contender.Collector(), frames)
            )

    return timed_runs(run, job)


def streams_round(job: BenchJob, count: int) -> list[TimedRun]:
    """Measure `count` streams at once, a process each: the frames of all over the seconds of the slowest."""
    meeting = multiprocessing.get_context("spawn").Barrier(count)
    with ThreadPoolExecutor(count) as pool:
        together = list(pool.map(lambda _: in_fresh_process(_one_of_many, job, meeting), range(count)))
    frames = sum(run.outcome.frames for runs in together for run in runs)
    seconds = max(sum(run.seconds for run in runs) for runs in together)
    return [TimedRun(TaskOutcome(frames), seconds, sum(run.cpu_seconds for runs in together for run in runs))]


def _one_of_many(job: BenchJob, meeting: Barrier) -> list[TimedRun]:
    """Measure one of the streams; they wait for each other once their networks are compiled."""
    runner: Runner = cliprl_contender.prepare(job)
    meeting.wait(SETUP_SECONDS)
    return timed_runs(runner, job)


def run_one_stream(job: BenchJob) -> list[TimedRun]:
    """Measure one round of one stream, in this process."""
    runner: Runner = cliprl_contender.prepare(job)
    return timed_runs(runner, job)


Task = tuple[Callable[..., list[TimedRun]], tuple[Any, ...]]


def tasks_of(axes: Sequence[str], job: BenchJob, folder: Path, log: LogFunction) -> dict[str, Task]:
    """The tasks of the axes, by case."""
    tasks: dict[str, Task] = {}
    if "resolution" in axes:
        for size in FRAME_SIZES:
            log(f"rendering {size}")
            (folder / size).mkdir(exist_ok=True)
            clip = clip_file(f"demo:?size={size}&seconds=4", folder / size)
            tasks[f"resolution {size}"] = (run_one_stream, (replace(job, clip=str(clip)),))
    if "streams" in axes:
        tasks |= {f"streams {count}": (streams_round, (job, count)) for count in STREAMS}
    if "steps" in axes:
        tasks |= {f"steps {count}": (run_one_stream, (replace(job, steps=count),)) for count in STEP_COUNTS}
    if "classes" in axes:
        tasks |= {f"classes {count}": (classes_round, (job, count)) for count in CLASS_COUNTS}
    return tasks


@measurement(
    "scale",
    help="The cost of a frame by resolution, number of streams, refinement steps and classes.",
    defaults=BenchJob("", rounds=2, seconds=4, warm_up=1),
    settings=(*TIMING_OPTIONS, "frames"),
    suite={"scale": {}},
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    axes: Annotated[
        Sequence[str],
        typer.Option("--axis", callback=only_of("axis", AXES), help=f"One of {', '.join(AXES)}; may be repeated."),
    ] = AXES,
) -> Result:
    """Measure every case of the axes in turn, each in a fresh process."""
    tasks = tasks_of(axes, job, session.folder, log)
    return session.rounds(tasks, job.rounds, log, lambda answers: session.result(_series(answers), METHOD))


def _series(answers: Answers) -> list[Series]:
    series = [s for case, rounds in answers.items() for s in rate_series(rounds, case)]
    return series + [work_series(rounds, case) for case, rounds in answers.items()]
