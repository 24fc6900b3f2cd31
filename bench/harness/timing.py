"""Jobs, timed runs and interleaved rounds: the parts of the method that every command shares."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cliprl.bench.harness.host import HostLog, HostWatch, wait_until_quiet
from cliprl.bench.harness.meters import EnergyMeter
from cliprl.bench.harness.subprocess_call import in_fresh_process
from cliprl.engines import CliprlError

LogFunction = Callable[[str], None]
# Frames of a warm-up run.
WARM_FRAMES = 30
# Most seconds to wait for a quiet machine after a disturbed round; and the longest round that is measured again by default.
QUIET_PATIENCE, LONG_ROUND = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class BenchJob:
    """One measurement. `clip` is a video file, `frames` the most of its frames that a run reads (None: all).

    A round warms up for `warm_up` seconds, then runs the clip again and again until `seconds` have been measured.
    `steps` is the most refinement steps a frame gets, None for the bundle's. `spare` is the most rounds that are measured again
    because the host disturbed one; None: as many as `rounds` if a round takes at most a minute, else 0.
    """

    clip: str
    bundle: str = "small"
    steps: int | None = None
    frames: int | None = None
    rounds: int = 5
    seconds: float = 10.0
    warm_up: float = 2.0
    spare: int | None = None

    @property
    def most_rounds(self) -> int:
        """The most rounds to measure, disturbed ones included."""
        spare = self.rounds if self.seconds <= LONG_ROUND else 0
        return self.rounds + (spare if self.spare is None else self.spare)


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The outcome of one run over a clip: its frames, and samples by name, in milliseconds unless the name has a unit.

    `cpu_seconds` is the CPU time of another process that does the work; None if this one does it.
    """

    frames: int
    samples: Mapping[str, list[float]] = field(default_factory=dict)
    cpu_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TimedRun:
    """An outcome with its seconds by the clock, the CPU seconds of all threads of its process, and the machine's joules.

    `cpu_seconds` are those of another process where the outcome names them; the joules are None without energy counters.
    """

    outcome: TaskOutcome
    seconds: float
    cpu_seconds: float
    joules: float | None = None

    @property
    def fps(self) -> float:
        """Frames per second of wall time."""
        return self.outcome.frames / self.seconds


def joint_fps(runs: Sequence[TimedRun]) -> float:
    """Frames per second of several runs together."""
    return sum(run.outcome.frames for run in runs) / sum(run.seconds for run in runs)


# Runs the clip (or its first frames) once, into an output file of the given path.
Runner = Callable[[Path, int | None], TaskOutcome]


def timed_runs(runner: Runner, job: BenchJob) -> list[TimedRun]:
    """Warm up by the clock, then measure runs for as long as the job says; at least one.

    A run is the whole clip, or the first part that a slow peer processes in three times the job's seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.mp4"
        return measured_runs(runner, job, out, warmed_up(runner, job, out))


def warmed_up(runner: Runner, job: BenchJob, out: Path) -> int | None:
    """Warm up by the clock; return the number of frames of a measured run, None for the whole clip."""
    frames = job.frames
    until = time.monotonic() + job.warm_up
    while time.monotonic() < until:
        warm = _timed(runner, out, min(WARM_FRAMES, job.frames or WARM_FRAMES))
        within = max(WARM_FRAMES, round(warm.fps * job.seconds * 3))
        frames = min(within, job.frames or within)
    return frames


def measured_runs(runner: Runner, job: BenchJob, out: Path, frames: int | None) -> list[TimedRun]:
    """Measure runs of `frames` frames for as long as the job says; at least one."""
    runs = [_timed(runner, out, frames)]
    while sum(run.seconds for run in runs) < job.seconds:
        runs.append(_timed(runner, out, frames))
    return runs


def _timed(runner: Runner, out: Path, frames: int | None) -> TimedRun:
    meter, start, cpu = EnergyMeter(), time.monotonic(), time.process_time()
    outcome = runner(out, frames)
    spent = time.process_time() - cpu if outcome.cpu_seconds is None else outcome.cpu_seconds
    run = TimedRun(outcome, time.monotonic() - start, spent, meter.joules())
    if not outcome.frames:
        raise CliprlError("a run gave no frame at all: try the clip with cliprl-stream first")
    return run


TimedTask = tuple[Callable[..., Any], tuple[Any, ...]]
# The answers of each task, one per round.
Answers = dict[str, list[Any]]


@dataclass
class SortedRounds:
    """The answers of the quiet rounds and of the disturbed ones, by task, and the number of quiet rounds."""

    quiet: Answers = field(default_factory=dict)
    disturbed: Answers = field(default_factory=dict)
    quiet_count: int = 0

    def add(self, current: Mapping[str, Any], *, quiet: bool) -> None:
        """Add the answers of one round."""
        self.quiet_count += quiet
        for name, answer in current.items():
            (self.quiet if quiet else self.disturbed).setdefault(name, []).append(answer)

    def answers(self, current: Mapping[str, Any] | None = None) -> Answers:
        """The rounds that count: the quiet ones; all if none was quiet. With those of a round that is not complete yet."""
        base = self.quiet or self.disturbed
        names = dict.fromkeys((*base, *(current or {})))
        added = {name: [answer] for name, answer in (current or {}).items()}
        return {name: [*base.get(name, []), *added.get(name, [])] for name in names}


# Measures one round, given the number of those before it and their answers; returns its own by task, and what disturbed it.
RoundFunction = Callable[[int, SortedRounds], tuple[Mapping[str, Any], Sequence[str]]]


def quiet_rounds(
    one_round: RoundFunction,
    wanted: int,
    most: int,
    log: LogFunction,
    keep: Callable[[Answers, int], None] = lambda answers, rounds: None,
    until: float = math.inf,
) -> SortedRounds:
    """Measure rounds until `wanted` of them were quiet: at least one, at most `most`; no round begins after `until`.

    After a disturbed round it waits for a quiet machine. `keep` receives the answers so far and their rounds after each round.
    """
    found, turn = SortedRounds(), 0
    while not turn or (found.quiet_count < wanted and turn < most and time.monotonic() <= until):
        current, reasons = one_round(turn, found)
        found.add(current, quiet=not reasons)
        turn += 1
        keep(found.answers(), turn)
        if reasons and turn < most:
            log(f"round {turn} was disturbed: {'; '.join(reasons)}")
            wait_until_quiet(min(QUIET_PATIENCE, max(until - time.monotonic(), 0.0)))
    return found


def interleaved(
    tasks: Mapping[str, TimedTask],
    rounds: int,
    log: LogFunction,
    keep: Callable[[Answers, int], None] = lambda answers, rounds: None,
    join: Callable[[list[Any]], Any] | None = None,
    host: HostLog | None = None,
    most: int = 0,
) -> Answers:
    """Run every task once a round, each in a fresh process, in turn: a machine that slows down slows every task.

    Returns the answers by task, one per round. The order rotates, so that no task always follows the same one.
    With a `host` log, rounds that the host disturbed are measured again, up to `most` rounds in all; see `SortedRounds`.
    `keep` receives the answers so far and the number of complete rounds: after each round, and in the first, which may be long,
    after each task. If a task is cut short, `join` makes an answer of its reports (see `subprocess_call`).
    """

    def one_round(turn: int, found: SortedRounds) -> tuple[Mapping[str, Any], Sequence[str]]:
        current, reasons, done = dict[str, Any](), list[str](), found.quiet_count
        count = f"round {turn + 1}, {done} of {rounds} done" if turn > done else f"round {turn + 1} of {rounds}"
        for name in _order(list(tasks), turn):
            log(f"{count}: {name}")
            function, arguments = tasks[name]
            reports: list[Any] = []
            watch = HostWatch() if host is not None else None
            try:
                current[name] = in_fresh_process(function, *arguments, on_report=reports.append)
            except BaseException:
                if join is not None and reports:
                    keep(found.answers(current | {name: join(reports)}), turn)
                raise
            if host is not None and watch is not None:
                reasons += host.note(turn + 1, name, watch.reading())
            if not turn:
                keep(found.answers(current), 0)
        return current, reasons

    found = quiet_rounds(one_round, rounds, max(rounds, most), log, keep)
    if host is not None:
        host.quiet = found.quiet_count
    return found.answers()


def _order(names: list[str], turn: int) -> list[str]:
    first = turn % max(len(names), 1)
    return names[first:] + names[:first]


def quiet_libraries() -> None:
    """Keep the peers' libraries from asking the network for updates while they are timed."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
