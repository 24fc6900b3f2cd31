"""The command `cliprl-archive`: run a folder of videos."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.archive.settings import OUTPUT_KINDS, ArchiveSettings, output_names
from cliprl.pipeline.cli import options as option
from cliprl.pipeline.cli.class_options import Classes, Ids, PromptOption
from cliprl.pipeline.cli.label_options import Polygons

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

in_workers = partial(typer.Option, rich_help_panel="Workers")

Folder = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", show_default=False, help="The folder of videos; its subfolders are included."),
]
Results = Annotated[
    Path,
    typer.Option(
        "-o",
        "--output",
        metavar="OUT",
        show_default=False,
        help="The folder of results. An interrupted run goes on where it ended if the same command is given again.",
    ),
]
OutputKinds = Annotated[
    list[str] | None,
    option.in_output(
        "--outputs",
        metavar="KIND,KIND",
        show_default="events,report",
        help=f"What to write for each video: {', '.join(OUTPUT_KINDS)}, or a file name such as overlay.mkv.",
    ),
]
Workers = Annotated[
    int | None,
    in_workers(
        min=0,
        show_default="one for two cores",
        help="Videos to process at a time on CPUs: worker processes here, tasks on a cluster.",
    ),
]
GpuWorkers = Annotated[
    int, in_workers(min=0, help="Videos to process at a time on GPUs, one on each, beside the CPUs.")
]
NetworkThreads = Annotated[
    int,
    in_workers(
        "--threads", min=0, show_default="from cores and workers", help="CPU threads of the networks of one worker."
    ),
]
RayAddress = Annotated[
    str | None,
    in_workers(
        "--ray",
        metavar="ADDRESS",
        show_default="this machine",
        help="Run on a Ray cluster: HOST:PORT, ray://HOST:PORT, or auto. All nodes need FOLDER and OUT under the same paths.",
    ),
]
Retry = Annotated[bool, typer.Option("--retry", help="Process videos again that failed in an earlier run.")]


@app.command(
    help="""Segment every video of a folder; on this machine, or on a Ray cluster.

A video is identified by its content: one that is done, has been renamed or copied is not processed again. A video that fails does
not stop the rest; OUT/index.html lists it with the reason. Exit status: 0 all done, 3 some videos failed, 1 stopped, 2 misuse.

[dim]Research software: not a medical device, not for diagnosis or treatment.[/]""",
    epilog="""[bold]Examples[/]

[cyan]cliprl-archive recordings -o results[/]  events and a report of each video, a table of all events, a summary page

[cyan]cliprl-archive recordings -o results --outputs events,coco,overlay --ids --workers 8[/]

[cyan]cliprl-archive /mnt/recordings -o /mnt/results --ray auto --gpu-workers 4[/]""",
)
def archive(
    folder: Folder,
    output: Results,
    outputs: OutputKinds = None,
    workers: Workers = None,
    gpu_workers: GpuWorkers = 0,
    threads: NetworkThreads = 0,
    ray: RayAddress = None,
    retry: Retry = False,
    bundle: option.BundleOption = "small",
    steps: option.Steps = None,
    precision: option.PrecisionOption = "auto",
    input_size: option.InputSize = None,
    prompt: PromptOption = None,
    classes: Classes = None,
    opacity: option.Opacity = 0.4,
    legend: option.Legend = True,
    status: option.StatusOption = True,
    ids: Ids = False,
    frames: option.Frames = None,
    polygons: Polygons = False,
    crf: option.Crf = 23,
    preset: option.PresetOption = option.Preset.ULTRAFAST,
    json_: option.Json = False,
    quiet: option.Quiet = False,
    version: option.Version = False,
) -> None:
    """Run the command. Its help describes the options."""
    from cliprl.pipeline.archive.run import ArchiveOptions, run_archive

    settings = ArchiveSettings(
        outputs=output_names(outputs) if outputs else ArchiveSettings().outputs,
        bundle=bundle,
        precision=precision,
        steps=steps,
        prompts=tuple(prompt or ()),
        classes=tuple(classes) if classes else None,
        opacity=opacity,
        legend=legend,
        status=status,
        ids=ids,
        frames=frames,
        crf=crf,
        preset=preset.value,
        polygons=polygons,
        input_size=input_size,
    )
    options = ArchiveOptions(folder, output, bundle, workers, gpu_workers, threads, ray, retry)
    raise typer.Exit(run_archive(options, settings, json_output=json_, quiet=quiet))


def main() -> None:
    """Run the console script. Exit status: 0 done, 3 videos failed, 1 stopped, 2 misuse, 128 + the number of a signal."""
    sys.exit(run_app(app, "cliprl-archive"))
