"""From samples to a result: command, input, machine, date, and the load of the machine."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from cliprl.bench.harness import environment
from cliprl.bench.harness.clips import clip_file, describe_clip
from cliprl.bench.harness.host import HostLog, KernelFiles
from cliprl.bench.harness.pairs import Contender, PairedRounds, measure_pairs
from cliprl.bench.harness.result import UNFINISHED, Result, Series
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction, TimedTask, interleaved
from cliprl.engines import open_bundle


class ResultSession:
    """Records the context of a measurement from its start; holds a temporary folder while it is open.

    `clip` is None for a command without one. `settings` are the fields of the job that the recorded command names, `words` its
    further words. `output` is the path of the result file; unfinished results are kept beside it (see `unfinished_path`).
    """

    def __init__(
        self,
        kind: str,
        clip: str | None,
        job: BenchJob,
        words: Sequence[str] = (),
        output: Path | None = None,
        settings: Sequence[str] = ("bundle", "rounds", "seconds", "warm_up", "steps", "frames"),
    ) -> None:
        self.kind = kind
        self.kept: Result | None = None
        self._output = output
        self.command = command_line(kind, clip, job, settings, words)
        self.bundle = environment.describe_bundle(open_bundle(job.bundle))
        self._folder = tempfile.TemporaryDirectory(prefix="cliprl-bench-")
        self.folder = Path(self._folder.name)
        self.clip = Path()
        self.input: Mapping[str, Any] = {"name": "random picture", "size": self.bundle["input"]}
        try:
            if clip is not None:
                self.clip = clip_file(clip, self.folder)
                self.input = describe_clip(clip, self.clip)
        except BaseException:
            self._folder.cleanup()
            raise
        self._job = job
        self._watch = environment.LoadWatch()
        self.host = HostLog(job.rounds, KernelFiles().unseen())

    def result(self, series: Sequence[Series], method: Mapping[str, Any], notes: Sequence[str] = ()) -> Result:
        """Make the result. `method` describes what a figure includes and excludes."""
        job = self._job
        timing = {"warm_up_seconds": job.warm_up, "seconds_a_round": job.seconds, "rounds": job.rounds}
        return Result(
            kind=self.kind,
            command=self.command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=environment.commit(),
            machine=environment.describe_machine() | self._watch.block(),
            input=self.input,
            bundle=self.bundle,
            method=timing | {"steps": job.steps, "frames": job.frames} | dict(method),
            series=tuple(series),
            notes=tuple(notes),
            host=self.host.block() if self.host.entries else {},
        )

    def rounds(
        self,
        tasks: Mapping[str, TimedTask],
        rounds: int,
        log: LogFunction,
        make_result: Callable[[Answers], Result],
        join: Callable[[list[Any]], Any] | None = None,
    ) -> Result:
        """Run `interleaved` tasks and return `make_result(answers)`; intermediate results are kept after each round.

        A round that the host disturbed is measured again, as often as the job allows.
        """

        def keep(answers: Answers, done: int) -> None:
            self.keep(make_result(answers), f"ended in round {done + 1} of {rounds}")

        self.host.wanted = rounds
        most = rounds + self._job.most_rounds - self._job.rounds
        return make_result(interleaved(tasks, rounds, log, keep, join, self.host, most))

    def pairs(
        self,
        name: str,
        first: Contender,
        others: Mapping[str, Contender],
        log: LogFunction,
        make_result: Callable[[Mapping[str, PairedRounds]], Result],
        until: Callable[[str], float] = lambda name: float("inf"),
    ) -> Result:
        """Measure the program `name` in pairs with others (see `measure_pairs`) and return `make_result(answers)`."""
        self.host.wanted = max(job.rounds for _, job in others.values())

        def keep(answers: dict[str, PairedRounds], rounds: int) -> None:
            self.keep(make_result(answers), f"ended in round {rounds + 1} of pair {len(answers)} of {len(others)}")

        return make_result(measure_pairs(name, first, others, self.host, log, keep, until))

    def keep(self, result: Result, words: str) -> None:
        """Keep an intermediate result, marked as unfinished; `words` describe the completed part."""
        if result.series:
            self.kept = replace(result, method={**result.method, UNFINISHED: words})
            if self._output is not None:
                self.kept.write(unfinished_path(self._output))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def unfinished_path(output: Path) -> Path:
    """The path of an unfinished result, beside the path of the finished one, which may hold an older one."""
    return output.with_name(f"{output.name}.unfinished")


def command_line(kind: str, clip: str | None, job: BenchJob, settings: Sequence[str], words: Sequence[str] = ()) -> str:
    """The full command, defaults included, as another person could type it: file names without the folders of this machine."""
    line = ["cliprl-bench", kind]
    if clip is not None:
        line.append(clip if clip.startswith("demo:") else Path(clip).name)
    for name in settings:
        value = getattr(job, name)
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else Path(f"{value}").name
            line += [f"--{name.replace('_', '-')}", shown]
    return shlex.join([*line, *words])
