"""From samples to a result file: who, what, where, when, and how busy the machine was."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cliprl.bench.harness import environment
from cliprl.bench.harness.clips import clip_file, describe_bundle, describe_clip
from cliprl.bench.harness.result import UNFINISHED, Result, Series
from cliprl.bench.harness.timing import Answers, BenchJob, Say, Task, interleaved
from cliprl.engines import open_bundle


class ResultSession:
    """Opened before the first measurement, asked for the result after the last. Holds a scratch folder while it is open.

    `clip` None: a command that needs none. `options` are the words of the command line that a job does not hold. `output` is
    where the result file will be: what is measured so far is kept beside it (see `kept_at`).
    """

    def __init__(
        self, kind: str, clip: str | None, job: BenchJob, options: Sequence[str] = (), output: Path | None = None
    ) -> None:
        self.kind = kind
        self.kept: Result | None = None
        self._output = output
        self.command = command_line(kind, clip, job, options)
        self.bundle = describe_bundle(open_bundle(job.bundle))
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

    def result(self, series: Sequence[Series], method: Mapping[str, Any], notes: Sequence[str] = ()) -> Result:
        """The finished result. `method` says what a figure includes and excludes."""
        job = self._job
        timing = {"warm_up_seconds": job.warm_up, "seconds_a_round": job.seconds, "rounds": job.rounds}
        return Result(
            kind=self.kind,
            command=self.command,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            commit=environment.commit(),
            machine=environment.describe() | self._watch.block(),
            input=self.input,
            bundle=self.bundle,
            method=timing | {"steps": job.steps, "frames": job.frames} | dict(method),
            series=tuple(series),
            notes=tuple(notes),
        )

    def rounds(
        self,
        tasks: Mapping[str, Task],
        rounds: int,
        say: Say,
        made: Callable[[Answers], Result],
        join: Callable[[list[Any]], Any] | None = None,
    ) -> Result:
        """What `made` makes of the answers of `interleaved` tasks; of those so far, too, so that they are kept."""

        def keep(answers: Answers, done: int) -> None:
            self.keep(made(answers), f"ended in round {done + 1} of {rounds}")

        return made(interleaved(tasks, rounds, say, keep, join))

    def keep(self, result: Result, words: str) -> None:
        """Keep what is measured so far, marked as unfinished in words that say how much it is."""
        if result.series:
            self.kept = replace(result, method={**result.method, UNFINISHED: words})
            if self._output is not None:
                self.kept.write(kept_at(self._output))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()


def kept_at(output: Path) -> Path:
    """Where an unfinished result is kept: beside the place of the finished one, which may hold an older one."""
    return output.with_name(f"{output.name}.unfinished")


def command_line(kind: str, clip: str | None, job: BenchJob, options: Sequence[str]) -> str:
    """The command in full, defaults too, as another could type it: files by their names, without the folders of this machine."""
    words = ["cliprl-bench", kind]
    if clip is not None:
        words.append(clip if clip.startswith("demo:") else Path(clip).name)
    words += ["--bundle", job.bundle if "/" not in job.bundle else Path(job.bundle).name]
    if job.seconds:
        words += ["--rounds", f"{job.rounds}", "--seconds", f"{job.seconds:g}", "--warm-up", f"{job.warm_up:g}"]
    for name, value in (("--steps", job.steps), ("--frames", job.frames)):
        words += [] if value is None else [name, f"{value}"]
    return shlex.join([*words, *options])
