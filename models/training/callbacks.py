"""How a run goes, on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cliprl.engines.cli.cli_runner import error_console
from cliprl.models.training.checkpoint import TrainingStage
from cliprl.models.training.throughput import Throughput

# Losses are shown as a running mean over about this many steps.
MEMORY = 20
# Where no bar can be drawn, a line is printed every so many steps.
LINE_EVERY = 50


class TrainingCallback:
    """Is told, and says nothing. What wants to know more is a subclass."""

    def on_step(self, stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
        """After every step: the stage, its steps done, and the step's losses."""

    def on_stage_end(self, stage: TrainingStage, pace: Throughput) -> None:
        """At a stage's end: how fast it was, and how much of it went by waiting for data."""

    def on_scene(self, done: int, total: int) -> None:
        """While scenes are drawn: how many of how many."""

    def on_score(self, done: int, total: int) -> None:
        """While the finished bundle is scored: how many frames of how many."""


class ProgressDisplay(TrainingCallback):
    """A bar for each stage, with the running mean of its losses; plain lines where standard error is no terminal."""

    def __init__(self, progress: Progress, prefix: str = "") -> None:
        self.progress, self.prefix = progress, prefix
        self._tasks: dict[str, TaskID] = {}
        self._means: dict[str, float] = {}

    @classmethod
    @contextmanager
    def open(cls, quiet: bool = False, prefix: str = "") -> Iterator[ProgressDisplay]:
        """A display on standard error, each of whose lines begins with `prefix`; `quiet`, it shows nothing."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        with Progress(*columns, console=error_console(quiet=quiet), disable=quiet) as progress:
            yield cls(progress, prefix)

    def on_step(self, stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
        """Move a stage's bar."""
        self._move(stage.name, done, stage.steps, losses)

    def on_stage_end(self, stage: TrainingStage, pace: Throughput) -> None:
        """Print a stage's pace above the bars."""
        self._print(f"{stage.name}: {pace}")

    def on_scene(self, done: int, total: int) -> None:
        """Move the bar of the scenes."""
        self._move("scenes", done, total, {})

    def on_score(self, done: int, total: int) -> None:
        """Move the bar of the scores."""
        self._move("scores", done, total, {})

    def on_progress(self, name: str, done: int, total: int) -> None:
        """Move the bar of some other work."""
        self._move(name, done, total, {})

    def _move(self, name: str, done: int, total: int, losses: Mapping[str, float]) -> None:
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(self.prefix + name, total=total, losses="")
            self._means = dict(losses)
        for key, value in losses.items():
            self._means[key] += (value - self._means[key]) / MEMORY
        text = "  ".join(f"{key} {value:.3f}" for key, value in self._means.items()) if losses else ""
        self.progress.update(self._tasks[name], completed=done, total=total, losses=text)
        if not self.progress.console.is_terminal and (done % LINE_EVERY == 0 or done == total):
            self._print(f"{name} {done}/{total}  {text}")

    def _print(self, line: str) -> None:
        self.progress.console.print(self.prefix + line, highlight=False, soft_wrap=True)
