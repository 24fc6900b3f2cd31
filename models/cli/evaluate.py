"""`cliprl-eval`: score a bundle on a data set."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import error_console
from cliprl.models.data.registry import dataset_kinds, describe_kinds
from cliprl.models.evaluation.study_command import InputSizeOption, QuietOption
from cliprl.pipeline.cli.class_options import ExemplarOption, PromptOption

SplitOption = Annotated[
    str | None,
    typer.Option(
        help="A published split (its test part, or NAME:train), or sequences: D2,OP3.", show_default="everything"
    ),
]
CorruptionsOption = Annotated[
    str | None,
    typer.Option(help="Also score under corruption: common (15), all (19), or kinds: fog,snow.", show_default="none"),
]

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    help="""Score a bundle on a data set, through the pipeline it runs in: every score under its own name, by class and by
sequence, with intervals. Writes scores.md, scores.json, counts.json and images of the worst frames.""",
    epilog="""[bold]Examples[/]

[cyan]cliprl-eval --data endovis2015:/data/endovis2015 --split both --union[/]  instrument or not, on D2 and OP3

[cyan]cliprl-eval --data endovis2018:/data/endovis2018 --split A --corruptions all[/]  with 19 corruptions at 5 severities

[cyan]cliprl-eval --data endovis2015:/data/endovis2015 --split D2 --map instrument-shaft=shaft
--map instrument-clasper=head --map instrument-wrist=head[/]  parts

[bold]Data sets[/] (each also takes every=N, and sequences=NAME,NAME, split=NAME or fold=N)

"""
    + describe_kinds().replace("\n", "\n\n"),
)
def evaluate_command(
    data: Annotated[
        str,
        typer.Option(
            metavar="KIND:FOLDER",
            help=f"The data set, or a label file or folder that is recognized; KIND is one of {', '.join(dataset_kinds())}.",
        ),
    ],
    bundle: Annotated[str, typer.Option(metavar="NAME|FOLDER", help="The engine bundle to score.")] = "small",
    split: SplitOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the tables and images.")] = Path("scores"),
    union: Annotated[bool, typer.Option("--union", help="Score instrument or not, all instruments as one.")] = False,
    ids: Annotated[
        bool, typer.Option("--ids", help="Also track the instruments: HOTA, IDF1, id switches, J&F of each clip.")
    ] = False,
    map_: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="BUNDLE=DATA", help="Let a class of the bundle count as one of the data set."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="CLASS", help="Leave pixels of a class of the data set out.")
    ] = None,
    prompt: PromptOption = None,
    exemplar: ExemplarOption = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Most refinement steps a frame.", show_default="the bundle's")
    ] = None,
    precision: Annotated[str, typer.Option(help="Arithmetic of the networks: auto, f32, bf16 or int8.")] = "auto",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of the networks.", show_default="half the cores")
    ] = 0,
    input_size: InputSizeOption = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Score the first N frames of each sequence.", show_default="all")
    ] = None,
    corruptions: CorruptionsOption = None,
    severities: Annotated[str, typer.Option(help="Severities of the corruptions.")] = "1,2,3,4,5",
    seed: Annotated[int, typer.Option(min=0, help="Draws the corruptions' noise.")] = 0,
    tolerance: Annotated[float, typer.Option(min=0, help="Of the boundary score, in pixels.")] = 5.0,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst frames to draw.")] = 8,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the tables of an earlier run.")] = False,
    quiet: QuietOption = False,
) -> None:
    """Read the options and run the evaluation."""
    from cliprl.models.evaluation.evaluate import EvaluationOptions, run_evaluation

    options = EvaluationOptions(
        data, bundle, split, out, union, tuple(map_ or ()), tuple(ignore or ()), steps, precision, threads, frames,
        corruptions, severities, seed, tolerance, worst, ids, tuple(prompt or ()), tuple(exemplar or ()), input_size,
        overwrite,
    )  # fmt: skip
    run_evaluation(options, error_console(quiet=quiet))


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-eval", uses_torch=True))


if __name__ == "__main__":
    main()
