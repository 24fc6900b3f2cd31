"""`cliprl-train tune`: adapt a bundle to a few labeled frames."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cliprl.engines.cli.cli_runner import error_console


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
