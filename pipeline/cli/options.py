"""The options of `cliprl-stream`. Those that are `hidden` are listed by `--help-all` only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cliprl.pipeline.cli.option_callbacks import print_schema, show_all, show_devices, show_version

if TYPE_CHECKING:
    from cliprl.pipeline.sinks.registry import SinkKind
    from cliprl.pipeline.sources.registry import SourceKind

# Options under the headings of the help.
in_output = partial(typer.Option, rich_help_panel="Output")
in_network = partial(typer.Option, rich_help_panel="Network")
in_image = partial(typer.Option, rich_help_panel="Image")
in_live = partial(typer.Option, rich_help_panel="Live")
# Where the help lists the kinds of inputs and outputs: see `list_kinds`.
_SOURCES, _SINKS = "{sources}", "{sinks}"


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


def list_kinds(parameters: Iterable[Any]) -> None:
    """Write the kinds of inputs and outputs into the help of these parameters.

    A run needs none of it: it imports the modules that register them while the networks load.
    """
    from cliprl.pipeline.sinks.registry import ordered_sinks
    from cliprl.pipeline.sources.registry import ordered_sources

    kinds: dict[str, Sequence[SinkKind | SourceKind]] = {_SOURCES: ordered_sources(), _SINKS: ordered_sinks()}
    for parameter in parameters:
        for place, found in kinds.items():
            listed = " · ".join(f"[cyan]{kind.shown}[/] {kind.help}" for kind in found)
            parameter.help = (parameter.help or "").replace(place, listed)


Input = Annotated[str, typer.Argument(metavar="INPUT", show_default=False, help=f"What to segment. {_SOURCES}.")]
OutputOption = Annotated[
    list[str] | None,
    in_output(
        "-o",
        "--output",
        metavar="PATH",
        show_default="INPUT_overlay.mp4",
        help=f"Where to write; may be repeated. {_SINKS}.",
    ),
]
Overwrite = Annotated[
    bool,
    in_output(
        "--overwrite",
        help="Replace existing outputs. Without it, only an unchanged earlier output of the same input is replaced. Inputs, and "
        "folders that hold anything but masks of earlier runs, are never replaced.",
    ),
]
Frames = Annotated[
    int | None,
    in_output(min=1, max=99_999_999, metavar="N", help="Stop after this many frames.", show_default="all"),
]
Web = Annotated[
    str | None,
    in_output(
        metavar="[HOST:PORT]",
        show_default="off",
        help="Show the video and its controls on a web page, by default at [cyan]127.0.0.1:8088[/]. Other addresses "
        "(0.0.0.0:8088) need the token that is printed. Files are written only with -o.",
    ),
]
WebUrl = Annotated[str, in_output(hidden=True, metavar="URL", help="Address of the page behind a reverse proxy.")]
WindowOption = Annotated[
    bool,
    in_output("--window", help="Show the video in a window; the key H lists its keys. Files are written only with -o."),
]
Crf = Annotated[
    int,
    in_output(
        min=0,
        max=51,
        hidden=True,
        help="Video quality: 0 lossless, 51 worst; a constant quantizer with ultrafast, else a constant rate factor.",
    ),
]
PresetOption = Annotated[Preset, in_output(hidden=True, help="Preset of x264: slower ones make smaller files.")]
EncodersOption = Annotated[
    int,
    in_output(
        min=0,
        max=64,
        hidden=True,
        show_default="1, or more with a GPU without NVENC",
        help="Encoders that work on one video file at once, each on a group of frames: for machines with many cores.",
    ),
]
Json = Annotated[bool, in_output("--json", help="Print the summary as JSON on standard output.")]
Quiet = Annotated[bool, in_output("-q", "--quiet", help="Print errors only.")]
Verbose = Annotated[bool, in_output("-v", "--verbose", help="Print the input, bundle and engine in use.")]
TraceOption = Annotated[
    Path | None,
    in_output(
        metavar="PATH",
        hidden=True,
        show_default="none",
        help="Write the time of every stage of every frame, for chrome://tracing or ui.perfetto.dev.",
    ),
]
BundleOption = Annotated[str, in_network(metavar="NAME|FOLDER", help="The engine bundle to run.")]
StreamIndex = Annotated[
    int | None,
    in_image(
        "--stream",
        min=0,
        metavar="N",
        hidden=True,
        show_default="the default or largest",
        help="Index of the video stream, for an input with several.",
    ),
]
Steps = Annotated[
    int | None,
    in_network(
        min=0, show_default="the bundle's", help="Maximum number of refinement steps per frame; 0 shows the base mask."
    ),
]
BudgetMs = Annotated[
    float | None,
    in_network(
        metavar="MS",
        show_default="none",
        help="Time budget per frame: refinement steps that would exceed it are skipped, frames never.",
    ),
]
InputSize = Annotated[
    str | None,
    in_network(
        metavar="HEIGHTxWIDTH",
        hidden=True,
        show_default="the bundle's",
        help="Input size of the networks: 256x320, 384x480, 512x640, or auto, the largest that keeps up with the input's frame "
        "rate here. A larger one finds finer structures and takes more time, in proportion to its pixels.",
    ),
]
DeviceOption = Annotated[str, in_network(help="Where to run: cpu, or cuda (an NVIDIA GPU).")]
PrecisionOption = Annotated[
    str,
    in_network(
        hidden=True,
        help="Arithmetic of the networks: f32, bf16 or int8 on a CPU; f32, f16, fp8 or int8 on a GPU; auto is the fastest "
        "that this machine has and that agrees with the bundle's reference.",
    ),
]
ThreadsOption = Annotated[
    int, in_network(min=0, hidden=True, show_default="half the cores", help="CPU threads of the networks.")
]
Opacity = Annotated[float, in_image(min=0.0, max=1.0, help="Opacity of the masks; 0 leaves the image unchanged.")]
Contours = Annotated[bool, in_image(hidden=True, help="Outline each class.")]
Legend = Annotated[bool, in_image(help="List the visible classes.")]
StatusOption = Annotated[bool, in_image(hidden=True, help="Show the status line at the bottom of the image.")]
MaxAgeMs = Annotated[
    float,
    in_live(
        min=0.0,
        metavar="MS",
        hidden=True,
        help="Maximum age of a mask. Until then it follows the motion of the image, afterwards it is not shown.",
    ),
]
WaitMs = Annotated[
    float | None,
    in_live(
        min=0.0,
        metavar="MS",
        hidden=True,
        show_default="0, and for files most of a frame",
        help="Time that a frame waits for its mask before it is shown with an older one.",
    ),
]
Reconnect = Annotated[
    bool | None,
    in_live(
        hidden=True,
        show_default="after the first frame",
        help="Connect again when the source is lost; with --reconnect also wait for a source that is not available yet.",
    ),
]
Record = Annotated[
    Path | None,
    in_live(
        metavar="FOLDER",
        show_default="off",
        help="Record in segments that also play after a power failure. Other files are written only with -o.",
    ),
]
RecordWhatOption = Annotated[RecordWhat, in_live(hidden=True, help="Record the camera's image, the overlay, or both.")]
SegmentMinutes = Annotated[float, in_live(hidden=True, help="Length of a recording's files.")]
Guard = Annotated[
    bool, in_live(hidden=True, help="Pixelate what is recorded or sent while the endoscope is outside the body.")
]
ListDevices = Annotated[
    bool, in_live("--list-devices", callback=show_devices, is_eager=True, help="Print the cameras of this machine.")
]
PrintSchema = Annotated[
    str | None,
    in_output(
        "--print-schema",
        callback=print_schema,
        is_eager=True,
        metavar="NAME",
        hidden=True,
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
