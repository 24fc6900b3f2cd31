"""`cliprl-train`: from a recipe to an engine bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cliprl.engines.cli.cli_runner import run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")] = "small",
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, scenes and the finished bundle.")] = Path(
        "runs/small"
    ),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a setting: supervised.steps=10. May be repeated.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 means all cores.")] = 0,
    device: Annotated[str, typer.Option(help="Where to train: auto (a GPU where there is one), cpu or cuda.")] = "auto",
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")] = False,
) -> None:
    """Train a CLIP-RL network: contrastive, supervised, reinforcement. Ends by writing OUT/bundle.

    A run that was cut off goes on from its last checkpoint when it is started again with the same OUT. OUT/logs is for
    TensorBoard. On several GPUs or machines: torchrun --nproc-per-node N -m cliprl.models.cli.train RECIPE ...
    """
    import torch

    from cliprl.models.config.load import load_recipe
    from cliprl.models.training.callbacks import ProgressDisplay
    from cliprl.models.training.parallel import launch, rank
    from cliprl.models.training.training import train as run

    chosen = load_recipe(recipe, set_ or ())
    if threads:
        torch.set_num_threads(threads)
    place = launch(device)
    with ProgressDisplay.open(quiet or rank() > 0) as display:
        bundle = run(chosen, out, display, place)
    if bundle:
        typer.echo(f"{bundle.path}")


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-train"))


if __name__ == "__main__":
    main()
