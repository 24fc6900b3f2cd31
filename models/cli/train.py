"""Train a recipe to an engine bundle (`cliprl-train RECIPE`), or tune a bundle (`cliprl-train tune`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich.console import Console
from rich.table import Table

from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import error_console


class RecipeGroup(typer.core.TyperGroup):
    """A command group whose command "train" may be left out: a first word that is no command is a recipe."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the name of the default command."""
        if args[:1] != ["--help"] and (not args or args[0] not in self.commands):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


_DEFAULT = "train"
app = typer.Typer(
    cls=RecipeGroup, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", help=__doc__
)


@app.command("tune")
def tune_command(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="The bundle to start from: a name or a folder.")],
    labels: Annotated[
        list[str],
        typer.Argument(
            metavar="LABELS...",
            help="Label files or folders, or data set lines KIND:FOLDER?OPTION=VALUE (see cliprl-eval --help); also with "
            "labels=instrument for masks of instrument or not, and ignore=CLASS,CLASS.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the new bundle; a bundle there is replaced.")],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change a setting: steps=300, data.root=FOLDER, "
            "'data.sets=[\"endovis2015:FOLDER?sequences=D1&labels=instrument\"]'. May be repeated.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 means all cores.")] = 0,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Tune the last layers of a bundle on labeled frames, mixed with old data, and write a new bundle.

    A fifth of the frames, in blocks, is held out. The new bundle is written only if instrument IoU on them does not fall and no
    score of old data falls by more than 1 point; the table of both is printed. Old data: rendered scenes, and data.sets.
    """
    import torch

    from cliprl.models.config.load import load_tune_config
    from cliprl.models.training.callbacks import ProgressDisplay
    from cliprl.models.tuning.tune import TuneOptions, tune

    config = load_tune_config(set_ or ())
    if threads:
        torch.set_num_threads(threads)
    with ProgressDisplay.open(quiet) as display:
        made = tune(TuneOptions(bundle, labels, out), config, display, error_console(quiet=quiet))
    typer.echo(f"{made.path}")


@app.command(_DEFAULT)
def train_command(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")] = "small",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints, scenes and the finished bundle.", show_default="runs/RECIPE"),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: supervised.steps=10. May be repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 means all cores.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train: auto (a GPU where there is one), cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Train a CLIP-RL network: contrastive, supervised, reinforcement. Write OUT/bundle and show its scores.

    An interrupted run resumes from its last checkpoint when it is started again with the same OUT. OUT/logs is for
    TensorBoard. On several GPUs or machines: torchrun --nproc-per-node N -m cliprl.models.cli.train RECIPE ...
    """
    from cliprl.models.config.load import load_recipe

    chosen, folder = load_recipe(recipe, set_ or ()), out or Path("runs") / Path(recipe).stem
    import torch

    from cliprl.models.training.callbacks import ProgressDisplay
    from cliprl.models.training.parallel import launch, process_rank
    from cliprl.models.training.training import train as run

    if threads:
        torch.set_num_threads(threads)
    place = launch(device)
    with ProgressDisplay.open(quiet or process_rank() > 0) as display:
        bundle = run(chosen, folder, display, place)
    if bundle:
        scores = bundle.manifest.scores
        Console(stderr=True, quiet=quiet).print(
            _score_table(scores) if scores else "Nothing was scored: name data.test."
        )
        typer.echo(f"{bundle.path}")


def _score_table(scores: Mapping[str, Any]) -> Table:
    """Return a table of a manifest's scores: base and refined, over all frames."""
    table = Table("score", "frames", "base", "refined")
    for title, entry in scores.items():
        values = (entry[side]["pooled"] for side in ("base", "refined"))
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(title, str(sum(entry["frames"].values())), *cells)
    return table


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-train", uses_torch=True))


if __name__ == "__main__":
    main()
