"""What is measured, how long, and in which processes: the parts of the method that every command shares."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cliprl.engines import CliprlError

Answer = TypeVar("Answer")
Say = Callable[[str], None]
# Frames of a run that only warms up.
WARM_FRAMES = 30


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement. `clip` is a video file, `frames` the most of its frames that a run reads (None: all).

    A round warms up for `warm_up` seconds, then runs the clip again and again until `seconds` have been measured.
    `steps` is the most refinement steps a frame gets, None for the bundle's.
    """

    clip: str
    bundle: str = "small"
    steps: int | None = None
    frames: int | None = None
    rounds: int = 5
    seconds: float = 10.0
    warm_up: float = 2.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run over a clip did: its frames, and samples of its own by name, in milliseconds unless the name says else."""

    frames: int
    samples: Mapping[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Run:
    """An outcome with the seconds it took by the clock, and of the processors, all threads of the process together."""

    outcome: Outcome
    seconds: float
    cpu_seconds: float

    @property
    def fps(self) -> float:
        """Frames per second of wall time."""
        return self.outcome.frames / self.seconds


# Runs the clip (or its first frames) once, into an output file of the given path.
Runner = Callable[[Path, int | None], Outcome]


def timed_runs(runner: Runner, job: Job) -> list[Run]:
    """Warm up by the clock, then measure runs for as long as the job says; at least one.

    A run is the whole clip, or as much of its beginning as a slow contender gets through in three times the job's seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        out, frames = Path(folder) / "out.mp4", job.frames
        warm_until = time.monotonic() + job.warm_up
        while time.monotonic() < warm_until:
            warm = _timed(runner, out, min(WARM_FRAMES, job.frames or WARM_FRAMES))
            within = max(WARM_FRAMES, round(warm.fps * job.seconds * 3))
            frames = min(within, job.frames or within)
        runs = [_timed(runner, out, frames)]
        while sum(run.seconds for run in runs) < job.seconds:
            runs.append(_timed(runner, out, frames))
    return runs


def _timed(runner: Runner, out: Path, frames: int | None) -> Run:
    start, cpu = time.monotonic(), time.process_time()
    outcome = runner(out, frames)
    run = Run(outcome, time.monotonic() - start, time.process_time() - cpu)
    if not outcome.frames:
        raise CliprlError("a run gave no frame at all: try the clip with cliprl-stream first")
    return run


def in_fresh_process(function: Callable[..., Answer], *arguments: Any) -> Answer:
    """Call a module-level function in a process of its own: nothing that ran before warms it, and its CPU time can be told.

    Raises what it raised, CliprlError where the process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise CliprlError("the measured process died: run the same with cliprl-stream to see why") from error


Task = tuple[Callable[..., Any], tuple[Any, ...]]


def interleaved(tasks: Mapping[str, Task], rounds: int, say: Say) -> dict[str, list[Any]]:
    """Run every task once a round, each in a fresh process, in turn: a machine that slows down slows all of them.

    Returns the answers by task, one a round. The order turns round by round, so that no task always follows the same one.
    """
    answers: dict[str, list[Any]] = {name: [] for name in tasks}
    names = list(tasks)
    for turn in range(rounds):
        first = turn % max(len(names), 1)
        for name in names[first:] + names[:first]:
            say(f"round {turn + 1} of {rounds}: {name}")
            function, arguments = tasks[name]
            answers[name].append(in_fresh_process(function, *arguments))
    return answers


def quiet_libraries() -> None:
    """Keep the peers' libraries from asking the network for updates while they are timed."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
