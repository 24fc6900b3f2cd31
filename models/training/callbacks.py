"""Callbacks of a training run, and the progress display on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cliprl.engines.cli.console import error_console
from cliprl.models.training.checkpoint import TrainingStage
from cliprl.models.training.throughput import Throughput

# Losses are shown as a running mean over about this many steps.
MEMORY = 20
# Without a terminal, a line is printed every LINE_EVERY steps.
LINE_EVERY = 50


class TrainingCallback:
    """The events of a training run. Every method does nothing; subclasses override those they need."""

    def on_step(self, stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
        """Handle the end of a step: the stage, its finished steps, and the losses of the step."""

    def on_stage_end(self, stage: TrainingStage, pace: Throughput) -> None:
        """Handle the end of a stage and its throughput."""

    def on_scene(self, done: int, total: int) -> None:
        """Handle a rendered scene: `done` of `total`."""

    def on_score(self, done: int, total: int) -> None:
        """Handle a scored frame: `done` of `total`."""

    def on_note(self, note: str) -> None:
        """Handle a remark for the user: a line."""


class ProgressDisplay(TrainingCallback):
    """A progress bar for each stage with the running mean of its losses; plain lines if standard error is no terminal."""

    def __init__(self, progress: Progress, prefix: str = "") -> None:
        self.progress, self.prefix = progress, prefix
        self._tasks: dict[str, TaskID] = {}
        self._means: dict[str, float] = {}

    @classmethod
    @contextmanager
    def open(cls, quiet: bool = False, prefix: str = "") -> Iterator[ProgressDisplay]:
        """Open a display on standard error. Its lines begin with `prefix`; if `quiet`, it shows nothing."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
        )
        console = error_console(quiet=quiet)
        with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
            yield cls(progress, prefix)

    def on_step(self, stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
        """Advance the bar of a stage."""
        self._move(stage.name, done, stage.steps, losses)

    def on_stage_end(self, stage: TrainingStage, pace: Throughput) -> None:
        """Print the throughput of a stage above the bars."""
        self._print(f"{stage.name}: {pace}")

    def on_scene(self, done: int, total: int) -> None:
        """Advance the bar of the rendered scenes."""
        self._move("scenes", done, total, {})

    def on_score(self, done: int, total: int) -> None:
        """Advance the bar of the scored frames."""
        self._move("scores", done, total, {})

    def on_note(self, note: str) -> None:
        """Print a remark above the bars."""
        self._print(note)

    def on_progress(self, name: str, done: int, total: int) -> None:
        """Advance the bar of other work, `name`."""
        self._move(name, done, total, {})

    def _move(self, name: str, done: int, total: int, losses: Mapping[str, float]) -> None:
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(self.prefix + name, total=total, losses="")
            self._means = {}
        # A stage comes again in the next round of weak training.
        self._means = self._means if done > 1 else {}
        for key, value in losses.items():
            mean = self._means.get(key, value)
            self._means[key] = mean + (value - mean) / MEMORY
        text = "  ".join(f"{key} {value:.3f}" for key, value in self._means.items()) if losses else ""
        self.progress.update(self._tasks[name], completed=done, total=total, losses=text)
        if not self.progress.console.is_terminal and (done % LINE_EVERY == 0 or done == total):
            self._print(f"{name} {done}/{total}  {text}")

    def _print(self, line: str) -> None:
        self.progress.console.print(self.prefix + line, highlight=False, soft_wrap=True)
