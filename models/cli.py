"""`cliprl-train`: from a recipe to an engine bundle."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from cliprl.engines.console import run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
# Losses are shown as a running mean over about this many steps.
MEMORY = 20
# Where no bar can be drawn, a line is printed every so many steps.
LINE_EVERY = 50


class Display:
    """A bar for each stage, with the running mean of its losses; plain lines where standard error is no terminal."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._means: dict[str, float] = {}

    def report(self, name: str, done: int, total: int, losses: Mapping[str, float]) -> None:
        """Move stage `name` to `done` of `total`."""
        if name not in self._tasks:
            self._tasks[name] = self.progress.add_task(name, total=total, losses="")
            self._means = dict(losses)
        for key, value in losses.items():
            self._means[key] += (value - self._means[key]) / MEMORY
        text = "  ".join(f"{key} {value:.3f}" for key, value in self._means.items())
        self.progress.update(self._tasks[name], completed=done, losses=text)
        if not self.progress.console.is_terminal and (done % LINE_EVERY == 0 or done == total):
            self.progress.console.print(f"{name} {done}/{total}  {text}", highlight=False, soft_wrap=True)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")] = "small",
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, scenes and the finished bundle.")] = Path(
        "runs/small"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: supervised.steps=10. May be repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 means all cores.")] = 0,
) -> None:
    """Train a CLIP-RL network: contrastive, supervised, reinforcement. Ends by writing OUT/bundle.

    A run that was cut off goes on from its last checkpoint when it is started again with the same OUT.
    """
    import torch

    from cliprl.models.config import load_recipe
    from cliprl.models.training import train as run

    chosen = load_recipe(recipe, set_ or ())
    if threads:
        torch.set_num_threads(threads)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        display = Display(progress)
        bundle = run(
            chosen,
            out,
            lambda stage, done, losses: display.report(stage.name, done, stage.steps, losses),
            lambda done, total: display.report("scenes", done, total, {}),
        )
    typer.echo(f"{bundle.path}")


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-train"))


if __name__ == "__main__":
    main()
