"""The run of `cliprl-stream` after its command line is parsed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

from rich.console import Console

from cliprl.engines import UsageError
from cliprl.engines.cli.cli_runner import printable
from cliprl.engines.cli.console import error_console, reporting_errors
from cliprl.engines.cli.signals import deferring_signals, end_at_once, end_if_deferred, stopping_on_signals
from cliprl.engines.selection.early_load import EarlyLoad
from cliprl.pipeline.cli.open_stream import open_video_stream
from cliprl.pipeline.cli.outputs import Outputs, check_source_name, default_output, with_exported_frames
from cliprl.pipeline.cli.progress import ProgressBar, bottleneck, describe_bottleneck, summary_json, summary_table
from cliprl.pipeline.cli.run_options import StreamOptions
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import VideoStream
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.statistics import Summary
from cliprl.pipeline.sinks.atomic_file import STDOUT
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.stream.trace import Trace


def run(
    options: StreamOptions,
    *,
    json_output: bool,
    quiet: bool,
    verbose: bool,
    note_outputs: bool = True,
    networks: EarlyLoad | None = None,
) -> int:
    """Run the stream; print progress and summary. Returns the exit status: 0, or 128 + the number of the signal that ended it.

    note_outputs: a later run of the same input may replace the outputs without --overwrite. `networks`: those of `options`,
    if they are being loaded already.
    """
    console = error_console(quiet=quiet)
    check_source_name(options.source)
    options = _with_all_outputs(options)
    targets = options.outputs
    if targets.count(STDOUT) > (not json_output):
        raise UsageError(
            f"-o {STDOUT} is given twice, or with --json, which prints on standard output too: give one of them"
        )
    recordings = options.live.record.folder if options.live.record else None
    outputs = Outputs(options.source, targets, trace=options.trace, recordings=recordings)
    with deferring_signals(end_at_once):
        with ExitStack() as opened:
            with reporting_errors(console) as log:
                stream = open_video_stream(options, outputs, opened, log, networks)
            if options.device != "cpu":
                gc.collect()
            gc.freeze()  # what is loaded now stays: a collection of it would hold up a frame for 40 ms
            gc.enable()
            opened.callback(gc.unfreeze)
            trace = opened.enter_context(Trace(options.trace)) if options.trace else None
            if verbose:
                _tell(console, stream.description)
            bar = ProgressBar(console, stream.info, options.frames, enabled=not json_output and not quiet)
            try:
                with bar, stopping_on_signals(stream.stop) as received:
                    end_if_deferred()
                    stream.run(_on_frame(bar, trace), frames=options.frames)
            finally:
                for note in [*stream.summary().notes, *(trace.notes if trace else ())]:
                    _tell(console, printable(f"note: {note}"), style="yellow", soft_wrap=True)
        if note_outputs:
            outputs.note()
    summary = stream.summary()
    slowest = bottleneck(summary, paced=stream.paced)
    if json_output:
        print(_json_of(options, stream, summary, slowest), flush=True)
    else:
        named = [target for target in targets if target not in ("null:", STDOUT) and summary.frames]
        wrote = [printable(f"wrote {_without_password(target)}") for target in named]
        _tell(console, summary_table(summary, wrote, describe_bottleneck(slowest, options.source)))
    return 128 + received[0] if received and stream.interrupted else 0


def _json_of(options: StreamOptions, stream: VideoStream, summary: Summary, slowest: str | None) -> str:
    """Return the summary of a run as a line of JSON, without passwords."""
    shown = _different([_without_password(target) for target in options.outputs])
    written = dict(zip(shown, stream.written, strict=True))
    run_of = {"input": _without_password(options.source), "outputs": shown, "bundle": options.bundle}
    return json_text(summary_json(summary, written, live=stream.displays) | run_of | {"bottleneck": slowest})


def _different(names: Sequence[str]) -> list[str]:
    """Return the names, numbered from the second equal one on: addresses may differ in the password alone."""
    repeats = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, repeats, strict=True)]


def _without_password(name: str) -> str:
    """Return an address without user and password: summaries are kept in logs. Other names stay as they were given."""
    return redact(name) if "://" in name else name


def _tell(console: Console, what: Any, **style: Any) -> None:
    """Print on standard error without markup. The run goes on if that fails."""
    with suppress(OSError):
        console.print(what, markup=False, highlight=False, **style)


def _on_frame(bar: ProgressBar, trace: Trace | None) -> Callable[[Frame, Segmentation | None], None]:
    def note(frame: Frame, segmentation: Segmentation | None) -> None:
        bar.advance()
        if trace is not None:
            trace(frame, segmentation)

    return note


def _with_all_outputs(options: StreamOptions) -> StreamOptions:
    """Add the default output, and the exported frames."""
    targets = options.outputs or (() if options.watched else (default_output(options.source),))
    if not options.export_frames:
        return replace(options, outputs=targets)
    targets, labels = with_exported_frames(targets, options.labels)
    return replace(options, outputs=targets, labels=labels)
