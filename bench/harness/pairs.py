"""Paired measurements: two programs take turns within seconds, each in a process that stays ready between its turns."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from cliprl.bench.harness.host import HostLog, HostReading, HostWatch
from cliprl.bench.harness.subprocess_call import ANSWER, ERROR, end_process, ended_by_parent, undisturbed_start
from cliprl.bench.harness.timing import (
    Answers,
    BenchJob,
    LogFunction,
    Runner,
    SortedRounds,
    TimedRun,
    joint_fps,
    measured_runs,
    quiet_libraries,
    quiet_rounds,
    warmed_up,
)
from cliprl.engines import CliprlError

Turn = tuple[list[TimedRun], HostReading]


class ReadyProcess:
    """A process with a warm runner, which measures whenever it is asked to. Closing it ends the process."""

    def __init__(self, name: str, prepare: Callable[[BenchJob], Runner], job: BenchJob) -> None:
        self.name = name
        self._line, there = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, prepare, job))
        with undisturbed_start():
            self._process.start()
        there.close()
        try:
            self._receive()
        except BaseException:
            self.close()
            raise

    def measure(self) -> Turn:
        """Measure for as long as the job says; with the host's reading meanwhile, other processes of this program included."""
        self._line.send(True)
        turn: Turn = self._receive()
        return turn

    def _receive(self) -> Any:
        try:
            kind, value = self._line.recv()
        except (EOFError, OSError):
            raise CliprlError(f"the process of '{self.name}' died: run its peer alone to see why") from None
        if kind == ERROR:
            raise value
        return value

    def close(self) -> None:
        """End the process."""
        self._line.close()
        end_process(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _serve(line: Connection, prepare: Callable[[BenchJob], Runner], job: BenchJob) -> None:
    with ended_by_parent():
        quiet_libraries()
        try:
            runner = prepare(job)
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "out.mp4"
                frames = warmed_up(runner, job, out)
                line.send((ANSWER, None))
                while line.recv():
                    watch = HostWatch()
                    runs = measured_runs(runner, job, out, frames)
                    line.send((ANSWER, (runs, watch.reading())))
        except EOFError:
            return  # the measurement is over
        except Exception as error:
            error.add_note(traceback.format_exc())
            line.send((ERROR, error))


@dataclass(frozen=True, slots=True)
class PairedRounds:
    """The runs of two programs in the rounds that count (see `SortedRounds`), one list a round."""

    first: list[list[TimedRun]]
    other: list[list[TimedRun]]


def measure_pair(
    first: ReadyProcess,
    other: ReadyProcess,
    job: BenchJob,
    host: HostLog,
    log: LogFunction,
    until: float = float("inf"),
    keep: Callable[[PairedRounds, int], None] = lambda pair, rounds: None,
) -> PairedRounds:
    """Measure rounds in which each of two programs has one turn; the one that begins changes from round to round.

    Rounds that the host disturbed are measured again, up to `job.most_rounds` in all; no round begins after the moment `until`.
    `keep` receives the rounds so far, and their number, after each.
    """

    def one_round(turn: int, found: SortedRounds) -> tuple[Mapping[str, list[TimedRun]], list[str]]:
        log(f"{first.name} and {other.name}: round {turn + 1}, {found.quiet_count} of {job.rounds} quiet")
        current, reasons = dict[str, list[TimedRun]](), list[str]()
        for process in (first, other) if turn % 2 == 0 else (other, first):
            runs, reading = process.measure()
            current[process.name] = runs
            case = process.name if process is other else f"{process.name} beside {other.name}"
            reasons += host.note(turn + 1, case, reading, fps=round(joint_fps(runs), 2))
        return current, reasons

    def pair(answers: Answers) -> PairedRounds:
        return PairedRounds(answers[first.name], answers[other.name])

    found = quiet_rounds(
        one_round, job.rounds, job.most_rounds, log, lambda answers, rounds: keep(pair(answers), rounds), until
    )
    host.count_pair(other.name, found.quiet_count)
    return pair(found.answers())


# What prepares the runner of a program, and its job.
Contender = tuple[Callable[[BenchJob], Runner], BenchJob]


def measure_pairs(
    name: str,
    first: Contender,
    others: Mapping[str, Contender],
    host: HostLog,
    log: LogFunction,
    keep: Callable[[dict[str, PairedRounds], int], None] = lambda answers, rounds: None,
    until: Callable[[str], float] = lambda name: float("inf"),
    left_out: Callable[[str, Exception], None] | None = None,
) -> dict[str, PairedRounds]:
    """Measure the program `name` in pairs with each of the others, one after the other.

    `keep` receives the answers so far, and the rounds of the pair that is being measured, after each round.

    `until` gives the moment after which no round of a pair is measured again. `left_out` receives the other program that failed
    and its error; without it the error ends the measurement.
    """
    answers: dict[str, PairedRounds] = {}
    log(f"starting {name}")
    with ReadyProcess(name, *first) as one:
        for other, contender in others.items():
            log(f"starting {other}")
            try:
                with ReadyProcess(other, *contender) as two:
                    answers[other] = measure_pair(
                        *(one, two, contender[1], host, log, until(other)),
                        keep=lambda pair, rounds, other=other: keep(answers | {other: pair}, rounds),  # type: ignore[misc]
                    )
            except Exception as error:
                if left_out is None:
                    raise
                left_out(other, error)
    return answers
