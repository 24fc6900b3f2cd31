"""The options of `cliprl-stream`. Those that are `hidden` are listed by `--help-all` only."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cliprl.pipeline.cli.option_callbacks import print_schema, show_all, show_devices, show_version
from cliprl.pipeline.sinks.registry import SinkKind, ordered_sinks
from cliprl.pipeline.sources.registry import SourceKind, ordered_sources


class Preset(StrEnum):
    """x264 presets that keep up with a camera."""

    ULTRAFAST = "ultrafast"
    SUPERFAST = "superfast"
    VERYFAST = "veryfast"
    FASTER = "faster"
    MEDIUM = "medium"


class RecordWhat(StrEnum):
    """The images that `--record` writes."""

    RAW = "raw"
    OVERLAY = "overlay"
    BOTH = "both"


def _listed(kinds: Sequence[SinkKind | SourceKind]) -> str:
    """A line for each kind: its names, and what it is."""
    return " · ".join(f"[cyan]{kind.shown}[/] {kind.help}" for kind in kinds)


Input = Annotated[
    str, typer.Argument(metavar="INPUT", show_default=False, help=f"What to segment. {_listed(ordered_sources())}.")
]
OutputOption = Annotated[
    list[str] | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        rich_help_panel="Output",
        show_default="INPUT_overlay.mp4",
        help=f"Where to write; may be repeated. {_listed(ordered_sinks())}.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        rich_help_panel="Output",
        help="Replace existing outputs. Without it, only an unchanged earlier output of the same input is replaced. Inputs, and "
        "folders that hold anything but masks of earlier runs, are never replaced.",
    ),
]
Frames = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=99_999_999,
        metavar="N",
        rich_help_panel="Output",
        help="Stop after this many frames.",
        show_default="all",
    ),
]
Web = Annotated[
    str | None,
    typer.Option(
        metavar="[HOST:PORT]",
        rich_help_panel="Output",
        show_default="off",
        help="Show the video and its controls on a web page, by default at [cyan]127.0.0.1:8088[/]. Other addresses "
        "(0.0.0.0:8088) need the token that is printed. Files are written only with -o.",
    ),
]
WebUrl = Annotated[
    str,
    typer.Option(
        hidden=True, metavar="URL", rich_help_panel="Output", help="Address of the page behind a reverse proxy."
    ),
]
WindowOption = Annotated[
    bool,
    typer.Option(
        "--window",
        rich_help_panel="Output",
        help="Show the video in a window; the key H lists its keys. Files are written only with -o.",
    ),
]
Crf = Annotated[
    int,
    typer.Option(
        min=0,
        max=51,
        hidden=True,
        rich_help_panel="Output",
        help="Video quality: 0 lossless, 51 worst; a constant quantizer with ultrafast, else a constant rate factor.",
    ),
]
PresetOption = Annotated[
    Preset,
    typer.Option(hidden=True, rich_help_panel="Output", help="Preset of x264: slower ones make smaller files."),
]
EncodersOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=64,
        hidden=True,
        rich_help_panel="Output",
        show_default="1, or more with a GPU without NVENC",
        help="Encoders that work on one video file at once, each on a group of frames: for machines with many cores.",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", rich_help_panel="Output", help="Print the summary as JSON on standard output.")
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", rich_help_panel="Output", help="Print errors only.")]
Verbose = Annotated[
    bool,
    typer.Option("-v", "--verbose", rich_help_panel="Output", help="Print the input, bundle and engine in use."),
]
TraceOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        hidden=True,
        rich_help_panel="Output",
        show_default="none",
        help="Write the time of every stage of every frame, for chrome://tracing or ui.perfetto.dev.",
    ),
]
BundleOption = Annotated[
    str, typer.Option(metavar="NAME|FOLDER", rich_help_panel="Network", help="The engine bundle to run.")
]
StreamIndex = Annotated[
    int | None,
    typer.Option(
        "--stream",
        min=0,
        metavar="N",
        hidden=True,
        rich_help_panel="Image",
        show_default="the default or largest",
        help="Index of the video stream, for an input with several.",
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel="Network",
        show_default="the bundle's",
        help="Maximum number of refinement steps per frame; 0 shows the base mask.",
    ),
]
BudgetMs = Annotated[
    float | None,
    typer.Option(
        metavar="MS",
        rich_help_panel="Network",
        show_default="none",
        help="Time budget per frame: refinement steps that would exceed it are skipped, frames never.",
    ),
]
InputSize = Annotated[
    str | None,
    typer.Option(
        metavar="HEIGHTxWIDTH",
        hidden=True,
        rich_help_panel="Network",
        show_default="the bundle's",
        help="Input size of the networks: 256x320, 384x480, 512x640, or auto, the largest that keeps up with the input's frame "
        "rate here. A larger one finds finer structures and takes more time, in proportion to its pixels.",
    ),
]
DeviceOption = Annotated[
    str, typer.Option(rich_help_panel="Network", help="Where to run: cpu, or cuda (an NVIDIA GPU).")
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        hidden=True,
        rich_help_panel="Network",
        help="Arithmetic of the networks: f32, bf16 or int8 on a CPU; f32, f16, fp8 or int8 on a GPU; auto is the fastest "
        "that this machine has and that agrees with the bundle's reference.",
    ),
]
ThreadsOption = Annotated[
    int,
    typer.Option(
        min=0,
        hidden=True,
        rich_help_panel="Network",
        show_default="half the cores",
        help="CPU threads of the networks.",
    ),
]
Opacity = Annotated[
    float,
    typer.Option(min=0.0, max=1.0, rich_help_panel="Image", help="Opacity of the masks; 0 leaves the image unchanged."),
]
Contours = Annotated[bool, typer.Option(rich_help_panel="Image", hidden=True, help="Outline each class.")]
Legend = Annotated[bool, typer.Option(rich_help_panel="Image", help="List the visible classes.")]
StatusOption = Annotated[
    bool, typer.Option(rich_help_panel="Image", hidden=True, help="Show the status line at the bottom of the image.")
]
MaxAgeMs = Annotated[
    float,
    typer.Option(
        min=0.0,
        metavar="MS",
        hidden=True,
        rich_help_panel="Live",
        help="Maximum age of a mask. Until then it follows the motion of the image, afterwards it is not shown.",
    ),
]
WaitMs = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        metavar="MS",
        hidden=True,
        rich_help_panel="Live",
        show_default="0, and for files most of a frame",
        help="Time that a frame waits for its mask before it is shown with an older one.",
    ),
]
Reconnect = Annotated[
    bool | None,
    typer.Option(
        hidden=True,
        rich_help_panel="Live",
        show_default="after the first frame",
        help="Connect again when the source is lost; with --reconnect also wait for a source that is not available yet.",
    ),
]
Record = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel="Live",
        show_default="off",
        help="Record in segments that also play after a power failure. Other files are written only with -o.",
    ),
]
RecordWhatOption = Annotated[
    RecordWhat,
    typer.Option(hidden=True, rich_help_panel="Live", help="Record the camera's image, the overlay, or both."),
]
SegmentMinutes = Annotated[
    float,
    typer.Option(hidden=True, rich_help_panel="Live", help="Length of a recording's files."),
]
Guard = Annotated[
    bool,
    typer.Option(
        hidden=True,
        rich_help_panel="Live",
        help="Pixelate what is recorded or sent while the endoscope is outside the body.",
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
        hidden=True,
        rich_help_panel="Output",
        show_default="none",
        help="Print the JSON Schema of an output: events (.jsonl), coco, masks (classes.json), report (.report.json), "
        "summary (--json).",
    ),
]
HelpAll = Annotated[
    bool,
    typer.Option("--help-all", callback=show_all, is_eager=True, help="Show all options, the rarely used ones too."),
]
Version = Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")]
