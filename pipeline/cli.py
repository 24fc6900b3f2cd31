"""`cliprl-stream`: see what the network sees, on any video."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from cliprl.engines.console import run_app

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
# What may follow --web: HOST:PORT, :PORT, a port, an IPv4 address, [IPv6] with or without a port, localhost.
_ADDRESS = re.compile(r"[\w.-]*:\d+|\d{2,5}|\d+(\.\d+){3}|\[[^\]]+\](:\d+)?|localhost")


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


def _list_devices(wanted: bool) -> None:
    if wanted:
        from cliprl.pipeline.sources.cameras import list_devices

        for device in list_devices():
            typer.echo(f"{device.path}\t{device.name}")
        raise typer.Exit


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"cliprl {version('cliprl')}")
        raise typer.Exit


class _StreamCommand(TyperCommand):
    """Lets --web stand alone: what follows it is its value only where it looks like an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Typer's own, with the value put in that was left out."""
        given = zip(args, [*args[1:], ""], strict=False)
        return super().parse_args(
            ctx, ["--web=" if w == "--web" and not _ADDRESS.fullmatch(n) else w for w, n in given]
        )


@app.command(
    cls=_StreamCommand,
    help="""Segment a surgical video and paint what the network sees over it, in real time.

INPUT is a video file, pictures ([cyan]'frames/*.png'[/]), a camera ([cyan]/dev/video0[/], [cyan]camera:NAME[/]), a network
stream ([cyan]rtsp://…[/], [cyan]udp://…[/], [cyan]http://…[/]), an X11 screen ([cyan]screen:[/]) or [cyan]demo:[/], a surgical
scene that the program renders itself.

[dim]Research software: not a medical device, not for diagnosis or treatment.[/]""",
    epilog="""[bold]Examples[/]

[cyan]cliprl-stream operation.mp4[/]  writes operation_overlay.mp4 beside it

[cyan]cliprl-stream operation.mp4 -o out.mkv -o masks/ -o events.jsonl --classes instrument-shaft[/]

[cyan]cliprl-stream demo: --steps 0[/]  the base mask, without refinement""",
)
def stream(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="What to segment.", show_default=False)],
    output: Annotated[
        list[str] | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            rich_help_panel="Output",
            show_default="INPUT_overlay.mp4",
            help="Where to write; may be given several times. [cyan].mp4 .mkv .mov[/] video with the audio unchanged · "
            "[cyan]FOLDER/[/] masks as indexed PNG · [cyan].coco.json[/] COCO RLE · [cyan].jsonl[/] one line a frame · "
            "[cyan]null:[/] nothing.",
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, rich_help_panel="Output", help="Stop after so many frames.", show_default="all")
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(
            metavar="[HOST:PORT]",
            rich_help_panel="Output",
            show_default="off",
            help="Show the picture and its controls on a page, at its own rate, at [cyan]127.0.0.1:8088[/] where no address "
            "is given. Beyond this machine (0.0.0.0:8088) a token is needed, which is printed. No file is written without -o.",
        ),
    ] = None,
    window: Annotated[
        bool,
        typer.Option(
            "--window",
            rich_help_panel="Output",
            help="Show the picture in a window, steered by keys (H lists them). No file is written without -o.",
        ),
    ] = False,
    crf: Annotated[
        int, typer.Option(min=0, max=51, rich_help_panel="Output", help="Video quality of x264: 0 lossless, 51 worst.")
    ] = 23,
    preset: Annotated[
        Preset, typer.Option(rich_help_panel="Output", help="x264's effort: slower ones make smaller files.")
    ] = Preset.ULTRAFAST,
    json_: Annotated[
        bool, typer.Option("--json", rich_help_panel="Output", help="Print the summary as JSON on standard output.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", rich_help_panel="Output", help="Print errors only.")] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", rich_help_panel="Output", help="Say what was chosen, and why.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            rich_help_panel="Output",
            show_default="none",
            help="Write where every frame's time went, for chrome://tracing or ui.perfetto.dev.",
        ),
    ] = None,
    bundle: Annotated[
        str, typer.Option(metavar="NAME|FOLDER", rich_help_panel="Network", help="The engine bundle to run.")
    ] = "small",
    steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            rich_help_panel="Network",
            show_default="the bundle's",
            help="Most refinement steps a frame gets; 0 shows the base mask.",
        ),
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(
            "--budget-ms",
            metavar="MS",
            rich_help_panel="Network",
            show_default="none",
            help="Time to spend on a frame: refinement steps that would end later are dropped, frames never.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(rich_help_panel="Network", help="Where to run: cpu, or cuda: an NVIDIA GPU.")
    ] = "cpu",
    precision: Annotated[
        str,
        typer.Option(
            rich_help_panel="Network",
            help="Arithmetic of the networks: f32, bf16 or int8 on a CPU, f32, f16, fp8 or int8 on a GPU; auto: the fastest "
            "that this machine has and that agrees with the bundle's reference.",
        ),
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(
            min=0, rich_help_panel="Network", show_default="half the cores", help="CPU threads of the networks."
        ),
    ] = 0,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PHRASE",
            rich_help_panel="Network",
            show_default="the bundle's classes",
            help="Add a class by its words, or reword the one of that name: [cyan]grasper[/], "
            "[cyan]'thread=suture, stitches #FF8800'[/]; may be repeated.",
        ),
    ] = None,
    classes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel="Picture",
            show_default="all",
            help="Paint only this class; may be repeated.",
        ),
    ] = None,
    opacity: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, rich_help_panel="Picture", help="Of the painted classes; 0 leaves the picture untouched."
        ),
    ] = 0.4,
    contours: Annotated[bool, typer.Option(rich_help_panel="Picture", help="Outline each class.")] = True,
    legend: Annotated[bool, typer.Option(rich_help_panel="Picture", help="Name the classes in view.")] = True,
    status: Annotated[
        bool, typer.Option(rich_help_panel="Picture", help="The line at the foot of the picture.")
    ] = True,
    max_age_ms: Annotated[
        float,
        typer.Option(
            "--max-age-ms",
            min=0.0,
            metavar="MS",
            rich_help_panel="Live",
            help="A mask of an older frame is moved along with the picture for so long, then it is not shown.",
        ),
    ] = 250.0,
    wait_ms: Annotated[
        float | None,
        typer.Option(
            "--wait-ms",
            min=0.0,
            metavar="MS",
            rich_help_panel="Live",
            show_default="0, and for files most of a frame",
            help="How long a frame waits for its own mask before it is shown with an older one.",
        ),
    ] = None,
    reconnect: Annotated[
        bool | None,
        typer.Option(
            "--reconnect/--no-reconnect",
            rich_help_panel="Live",
            show_default="once it was seen",
            help="Connect again when the source goes away; with --reconnect also wait for one that is not there yet.",
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel="Live",
            show_default="off",
            help="Record in segments that play after a power cut too. No other file is written without -o.",
        ),
    ] = None,
    record_what: Annotated[
        RecordWhat,
        typer.Option("--record-what", rich_help_panel="Live", help="The camera's picture, the overlay, or both."),
    ] = RecordWhat.BOTH,
    segment_minutes: Annotated[
        float, typer.Option("--segment-minutes", rich_help_panel="Live", help="Length of a recording's files.")
    ] = 5.0,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard/--no-guard",
            rich_help_panel="Live",
            help="Pixelate what is recorded or sent while the scope is out of the body.",
        ),
    ] = True,
    list_devices: Annotated[
        bool,
        typer.Option(
            "--list-devices",
            callback=_list_devices,
            is_eager=True,
            rich_help_panel="Live",
            help="Print the cameras of this machine.",
        ),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """See the command's help above."""
    from cliprl.pipeline.command import Options, run
    from cliprl.pipeline.live.opening import LiveOptions, record_options
    from cliprl.pipeline.watch import RECORDINGS

    recorded = None
    if record is not None or web is not None or window:
        recorded = record_options(record or RECORDINGS, record_what.value, segment_minutes, crf, preset.value)
    options = Options(
        source=source,
        outputs=tuple(output or ()),
        frames=frames,
        bundle=bundle,
        steps=steps,
        budget_ms=budget_ms,
        device=device,
        precision=precision,
        threads=threads,
        prompts=tuple(prompt or ()),
        classes=tuple(classes) if classes else None,
        opacity=opacity,
        contours=contours,
        legend=legend,
        status=status,
        crf=crf,
        preset=preset.value,
        trace=trace,
        web=web,
        window=window,
        live=LiveOptions(max_age_ms, wait_ms, reconnect, guard, recorded, record is not None),
    )
    raise typer.Exit(run(options, json_output=json_, quiet=quiet, verbose=verbose))


def main() -> None:
    """The console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    sys.exit(run_app(app, "cliprl-stream"))
