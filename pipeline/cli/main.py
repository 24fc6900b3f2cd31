"""The command `cliprl-stream`: segment a video and draw the masks over it."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from cliprl.engines import UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.cli import options as option
from cliprl.pipeline.cli.class_options import Classes, ExemplarOption, Follow, Ids, PromptOption, Tracker
from cliprl.pipeline.cli.correction_options import CorrectionOptions, Corrections, CorrectWith
from cliprl.pipeline.cli.label_options import ExportFrames, FrameNames, Names, Polygons

if TYPE_CHECKING:
    from cliprl.engines.selection.early_load import EarlyLoad
    from cliprl.pipeline.cli.run_options import StreamOptions

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
# Length of a recording's files.
DEFAULT_MINUTES = 5.0
# Values of --web: HOST:PORT, :PORT, a port, an IPv4 address, [IPv6] with or without a port, localhost.
_ADDRESS = re.compile(r"[\w.-]*:\d+|\d{2,5}|\d+(\.\d+){3}|\[[^\]]+\](:\d+)?|localhost")


class _StreamCommand(TyperCommand):
    """Makes the value of --web optional: the next word is its value only if it looks like an address."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse as typer does, with an empty value of --web inserted if it is left out."""
        given = list(zip(args, [*args[1:], ""], strict=False))
        words = ["--web=" if w == "--web" and not _ADDRESS.fullmatch(n) else w for w, n in given]
        after = next((n for w, n in given if w == "--web" and n and "--web=" in words), "")
        try:
            return super().parse_args(ctx, words)
        except typer.BadParameter:
            raise
        except Exception as error:
            if after and "unexpected extra argument" in str(error):
                raise UsageError(
                    f"{error} If '{after}' after --web is an address to listen on, write it as HOST:PORT, HOST or :PORT, "
                    "as in 127.0.0.1:8088; otherwise give one INPUT only"
                ) from None
            raise

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Format as typer does, with the kinds of inputs and outputs listed."""
        option.list_kinds(self.params)
        super().format_help(ctx, formatter)


@app.command(
    cls=_StreamCommand,
    help="""Segment a surgical video and draw the masks over it, in real time.

[dim]Research software: not a medical device, not for diagnosis or treatment.[/]""",
    epilog="""[bold]Examples[/]

[cyan]cliprl-stream operation.mp4[/]  writes operation_overlay.mp4

[cyan]cliprl-stream operation.mp4 -o out.mkv -o masks/ -o events.jsonl --classes instrument-shaft[/]

[cyan]cliprl-stream demo: --steps 0[/]  a rendered scene, with the base mask only""",
)
def stream(
    source: option.Input,
    output: option.OutputOption = None,
    overwrite: option.Overwrite = False,
    frames: option.Frames = None,
    export_frames: ExportFrames = False,
    names: Names = FrameNames.FRAME,
    polygons: Polygons = False,
    web: option.Web = None,
    web_url: option.WebUrl = "",
    window: option.WindowOption = False,
    crf: option.Crf = 23,
    preset: option.PresetOption = option.Preset.ULTRAFAST,
    encoders: option.EncodersOption = 0,
    json_: option.Json = False,
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
    trace: option.TraceOption = None,
    bundle: option.BundleOption = "small",
    stream_index: option.StreamIndex = None,
    steps: option.Steps = None,
    budget_ms: option.BudgetMs = None,
    device: option.DeviceOption = "cpu",
    precision: option.PrecisionOption = "auto",
    threads: option.ThreadsOption = 0,
    input_size: option.InputSize = None,
    prompt: PromptOption = None,
    exemplar: ExemplarOption = None,
    classes: Classes = None,
    opacity: option.Opacity = 0.4,
    contours: option.Contours = True,
    legend: option.Legend = True,
    status: option.StatusOption = True,
    ids: Ids = False,
    follow: Follow = None,
    tracker: Tracker = None,
    corrections: Corrections = None,
    correct_with: CorrectWith = "",
    max_age_ms: option.MaxAgeMs = 250.0,
    wait_ms: option.WaitMs = None,
    reconnect: option.Reconnect = None,
    record: option.Record = None,
    record_what: option.RecordWhatOption = option.RecordWhat.BOTH,
    segment_minutes: option.SegmentMinutes = DEFAULT_MINUTES,
    guard: option.Guard = True,
    list_devices: option.ListDevices = False,
    schema: option.PrintSchema = None,
    help_all: option.HelpAll = False,
    version: option.Version = False,
) -> None:
    """Run the command. Its help describes the options."""
    given = locals()
    networks = _early_load(given)
    from cliprl.pipeline.cli.run import run

    options = _stream_options(given)
    raise typer.Exit(run(options, json_output=json_, quiet=quiet, verbose=verbose, networks=networks))


def _early_load(given: Mapping[str, Any]) -> EarlyLoad | None:
    """Begin to load the networks of a run of a file on the CPU; None if other options decide which ones these are.

    Another run opens its bundle later: it loads them in another process, or for other classes or another input size.
    """
    others = (
        given["web"] is not None,
        *(given[name] for name in ("window", "record", "prompt", "exemplar", "input_size")),
    )
    if given["device"] != "cpu" or any(others) or not os.path.isfile(given["source"]):
        return None
    from cliprl.engines.selection.early_load import EarlyLoad

    return EarlyLoad(given["bundle"], precision=given["precision"], threads=given["threads"])


def _stream_options(given: Mapping[str, Any]) -> StreamOptions:
    """Build the options of a run from the command's parameters by name."""
    from cliprl.pipeline.cli.run_options import StreamOptions
    from cliprl.pipeline.cli.viewers import RECORDINGS_FOLDER
    from cliprl.pipeline.core.interfaces import LabelStyle
    from cliprl.pipeline.live.factory import LiveOptions, record_options

    if given["web_url"] and given["web"] is None:
        raise UsageError(f"--web-url '{given['web_url']}' is for the page: give --web too")
    folder, preset = given["record"], given["preset"].value
    live: dict[str, Any] = {name: given[name] for name in ("max_age_ms", "wait_ms", "reconnect", "guard")}
    what, minutes = given["record_what"].value, given["segment_minutes"]
    if folder is not None or given["web"] is not None or given["window"]:
        live["record"] = record_options(folder or RECORDINGS_FOLDER, what, minutes, given["crf"], preset)
    elif (what, minutes) != (option.RecordWhat.BOTH.value, DEFAULT_MINUTES):
        raise UsageError(
            "--record-what and --segment-minutes are for recordings: give --record FOLDER, --web or --window, or leave them out"
        )
    options: dict[str, Any] = {field.name: given[field.name] for field in fields(StreamOptions) if field.name in given}
    options["live"] = LiveOptions(recording=folder is not None, stream=given["stream_index"], **live)
    options |= {"outputs": tuple(given["output"] or ()), "prompts": tuple(given["prompt"] or ()), "preset": preset}
    options["exemplars"] = tuple(given["exemplar"] or ())
    options["ids"] = given["ids"] or given["follow"] is not None
    options["corrections"] = CorrectionOptions.of_command(given)
    options["classes"] = tuple(given["classes"]) if given["classes"] else None
    options["labels"] = LabelStyle(given["names"].value, given["polygons"])
    return StreamOptions(**options)


def main() -> None:
    """Run the console script. Exit status: 0 done, 1 failed, 2 misuse, 130 interrupted. Errors are one line on stderr."""
    gc.disable()  # until the first frame: what is loaded for it stays
    status = run_app(app, "cliprl-stream", collects=False)
    gc.freeze()  # the interpreter's last collections would look through all that was loaded: a tenth of a short run
    gc.enable()
    sys.exit(status)
