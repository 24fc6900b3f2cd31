"""The options of `cliprl-stream`: what each takes, where the help lists it, and what it says."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Preset(StrEnum):
    """x264 presets that keep up with a camera."""

    ULTRAFAST = "ultrafast"
    SUPERFAST = "superfast"
    VERYFAST = "veryfast"
    FASTER = "faster"
    MEDIUM = "medium"


class RecordWhat(StrEnum):
    """What is recorded."""

    RAW = "raw"
    OVERLAY = "overlay"
    BOTH = "both"


def show_devices(wanted: bool) -> None:
    """Print this machine's cameras, and end."""
    if wanted:
        from cliprl.pipeline.sources.v4l2_devices import list_devices

        devices = list_devices()
        for device in devices:
            typer.echo(f"{device.path}\t{device.name}")
        if not devices:
            typer.echo("no camera was found on this machine (none of /dev/video* gives pictures)", err=True)
        raise typer.Exit


def print_schema(name: str | None) -> None:
    """Print a JSON Schema, and end."""
    if name is not None:
        from cliprl.pipeline.schemas import schema_text

        typer.echo(schema_text(name), nl=False)
        raise typer.Exit


def show_version(wanted: bool) -> None:
    """Print the version, and end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cliprl {version('cliprl')}")
        raise typer.Exit


Input = Annotated[str, typer.Argument(metavar="INPUT", help="What to segment.", show_default=False)]
Output = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        rich_help_panel="Output",
        show_default="INPUT_overlay.mp4",
        help="Where to write; may be given several times. [cyan].mp4 .mkv .mov[/] video with the audio unchanged · "
        "[cyan]FOLDER/[/] masks as indexed PNG · [cyan].coco.json[/] COCO RLE · [cyan].jsonl[/] one line a frame · "
        "[cyan]rtsp:// rtmp:// udp:// live.m3u8[/] a live stream · [cyan]/dev/video9[/] a virtual camera · "
        "[cyan]null:[/] nothing. A file that exists is replaced only if it is an unchanged earlier output of the same input, "
        "and a folder of masks only if an earlier run wrote all that is in it; see --overwrite.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        rich_help_panel="Output",
        help="Replace outputs that exist, whatever they are, when the new ones are whole. Inputs are never replaced, nor "
        "folders that hold anything but masks of earlier runs.",
    ),
]
Frames = Annotated[
    int | None, typer.Option(min=1, rich_help_panel="Output", help="Stop after so many frames.", show_default="all")
]
Web = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:PORT]",
        rich_help_panel="Output",
        show_default="off",
        help="Show the picture and its controls on a page, at its own rate, at [cyan]127.0.0.1:8088[/] where no address "
        "is given. Beyond this machine (0.0.0.0:8088) a token is needed, which is printed. No file is written without -o.",
    ),
]
Window = Annotated[
    bool,
    typer.Option(
        "--window",
        rich_help_panel="Output",
        help="Show the picture in a window, steered by keys (H lists them). No file is written without -o.",
    ),
]
Crf = Annotated[
    int, typer.Option(min=0, max=51, rich_help_panel="Output", help="Video quality of x264: 0 lossless, 51 worst.")
]
PresetOption = Annotated[
    Preset, typer.Option(rich_help_panel="Output", help="x264's effort: slower ones make smaller files.")
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel="Output", help="Print the summary as JSON on standard output.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", rich_help_panel="Output", help="Print errors only.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", rich_help_panel="Output", help="Say what was chosen, and why.")
]
Trace = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        rich_help_panel="Output",
        show_default="none",
        help="Write where every frame's time went, for chrome://tracing or ui.perfetto.dev.",
    ),
]
Bundle = Annotated[
    str, typer.Option(metavar="NAME|FOLDER", rich_help_panel="Network", help="The engine bundle to run.")
]
StreamIndex = Annotated[
    int | None,
    typer.Option(
        "--stream",
        min=0,
        metavar="N",
        rich_help_panel="Picture",
        show_default="the default or largest",
        help="Which video stream of a file or address to show, where it has several: its index, as the note lists them.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel="Network",
        show_default="the bundle's",
        help="Most refinement steps a frame gets; 0 shows the base mask.",
    ),
]
BudgetMs = Annotated[
    float | None,
    typer.Option(
        "--budget-ms",
        metavar="MS",
        rich_help_panel="Network",
        show_default="none",
        help="Time to spend on a frame: refinement steps that would end later are dropped, frames never.",
    ),
]
Device = Annotated[str, typer.Option(rich_help_panel="Network", help="Where to run: cpu, or cuda: an NVIDIA GPU.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        rich_help_panel="Network",
        help="Arithmetic of the networks: f32, bf16 or int8 on a CPU, f32, f16, fp8 or int8 on a GPU; auto: the fastest "
        "that this machine has and that agrees with the bundle's reference.",
    ),
]
Threads = Annotated[
    int,
    typer.Option(min=0, rich_help_panel="Network", show_default="half the cores", help="CPU threads of the networks."),
]
Prompt = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=PHRASE",
        rich_help_panel="Network",
        show_default="the bundle's classes",
        help="Add a class by its words, or reword the one of that name: [cyan]grasper[/], "
        "[cyan]'thread=suture, stitches #FF8800'[/]; may be repeated.",
    ),
]
Classes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        rich_help_panel="Picture",
        show_default="all",
        help="Paint only these: a class, several with commas between them, or a group by how its names begin "
        "([cyan]instrument[/]: instrument-shaft, instrument-wrist, …); may be repeated.",
    ),
]
Opacity = Annotated[
    float,
    typer.Option(
        min=0.0, max=1.0, rich_help_panel="Picture", help="Of the painted classes; 0 leaves the picture untouched."
    ),
]
Contours = Annotated[bool, typer.Option(rich_help_panel="Picture", help="Outline each class.")]
Legend = Annotated[bool, typer.Option(rich_help_panel="Picture", help="Name the classes in view.")]
Status = Annotated[bool, typer.Option(rich_help_panel="Picture", help="The line at the foot of the picture.")]
MaxAgeMs = Annotated[
    float,
    typer.Option(
        "--max-age-ms",
        min=0.0,
        metavar="MS",
        rich_help_panel="Live",
        help="A mask of an older frame is moved along with the picture for so long, then it is not shown.",
    ),
]
WaitMs = Annotated[
    float | None,
    typer.Option(
        "--wait-ms",
        min=0.0,
        metavar="MS",
        rich_help_panel="Live",
        show_default="0, and for files most of a frame",
        help="How long a frame waits for its own mask before it is shown with an older one.",
    ),
]
Reconnect = Annotated[
    bool | None,
    typer.Option(
        "--reconnect/--no-reconnect",
        rich_help_panel="Live",
        show_default="once it was seen",
        help="Connect again when the source goes away; with --reconnect also wait for one that is not there yet.",
    ),
]
Record = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel="Live",
        show_default="off",
        help="Record in segments that play after a power cut too. No other file is written without -o.",
    ),
]
RecordWhatOption = Annotated[
    RecordWhat,
    typer.Option("--record-what", rich_help_panel="Live", help="The camera's picture, the overlay, or both."),
]
SegmentMinutes = Annotated[
    float, typer.Option("--segment-minutes", rich_help_panel="Live", help="Length of a recording's files.")
]
Guard = Annotated[
    bool,
    typer.Option(
        "--guard/--no-guard",
        rich_help_panel="Live",
        help="Pixelate what is recorded or sent while the scope is out of the body.",
    ),
]
ListDevices = Annotated[
    bool,
    typer.Option(
        "--list-devices",
        callback=show_devices,
        is_eager=True,
        rich_help_panel="Live",
        help="Print the cameras of this machine.",
    ),
]
PrintSchema = Annotated[
    str | None,
    typer.Option(
        "--print-schema",
        callback=print_schema,
        is_eager=True,
        metavar="NAME",
        rich_help_panel="Output",
        show_default="none",
        help="Print the JSON Schema of an output, and end: events (.jsonl), coco, masks (their classes.json), summary (--json).",
    ),
]
Version = Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")]
