"""The run of `cliprl-stream` after its command line is parsed."""

from __future__ import annotations

import gc
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from rich.console import Console

from cliprl.engines import Bundle, UsageError
from cliprl.engines.cli.cli_runner import error_console, reporting_errors
from cliprl.engines.cli.signals import (
    call_interruptibly,
    deferring_signals,
    end_if_deferred,
    interruptible,
    on_ending_signals,
)
from cliprl.pipeline.cli.class_selection import fit_to_source, open_with_classes
from cliprl.pipeline.cli.correction_options import open_corrections
from cliprl.pipeline.cli.label_options import with_exported_frames, writes_frames
from cliprl.pipeline.cli.outputs import Outputs, check_source_name, default_output
from cliprl.pipeline.cli.progress import ProgressBar, bottleneck, describe_bottleneck, summary_json, summary_table
from cliprl.pipeline.cli.run_options import StreamOptions, describe_run, status_line
from cliprl.pipeline.cli.viewers import tidy_recordings, watchable, web_viewer, window
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, Sink, VideoStream
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.devices.device import Device, device_opener, live_codecs, open_device
from cliprl.pipeline.live.factory import first_source, open_live
from cliprl.pipeline.live.segmentation.device_segmenter import open_device_segmenter
from cliprl.pipeline.live.segmentation.worker import SegmenterFactory
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.overlay.original import KeepOriginal
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.palette import overlay_classes
from cliprl.pipeline.segment.prompts import parse_prompt
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sinks.json_text import json_text
from cliprl.pipeline.sinks.labels.masks import IDS_SUFFIX
from cliprl.pipeline.sinks.registry import is_stream
from cliprl.pipeline.sinks.video.live_encoding import LiveEncoding
from cliprl.pipeline.sources import FrameSource
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.registry import find_source, is_live_name
from cliprl.pipeline.stream.stream import Stream
from cliprl.pipeline.stream.trace import Trace
from cliprl.pipeline.tracking.follow import FollowTarget
from cliprl.pipeline.tracking.segmenter import TrackingSegmenter, open_tracking

# Seconds that outputs wait for the encoder of a GPU to start: less than a recording's queue holds; a network stream begins later.
RECORDING_SECONDS, NETWORK_SECONDS = 1.0, 10.0


def run(options: StreamOptions, *, json_output: bool, quiet: bool, verbose: bool, note_outputs: bool = True) -> int:
    """Run the stream; print progress and summary. Returns the exit status: 0, or 128 + the number of the signal that ended it.

    note_outputs: a later run of the same input may replace the outputs without --overwrite.
    """
    console = error_console(quiet=quiet)
    check_source_name(options.source)
    targets = options.outputs or (() if options.watched else (default_output(options.source),))
    if options.export_frames:
        targets, style = with_exported_frames(targets, options.labels)
        options = replace(options, labels=style)
    recordings = options.live.record.folder if options.live.record else None
    outputs = Outputs(options.source, targets, trace=options.trace, recordings=recordings)
    with deferring_signals(_end_at_once):
        with ExitStack() as opened:
            with reporting_errors(console) as log:
                stream = _open(options, outputs, targets, opened, log)
            if options.device != "cpu":
                gc.collect()
            gc.freeze()  # what is loaded now stays: a collection of it would hold up a frame for 40 ms
            opened.callback(gc.unfreeze)
            trace = opened.enter_context(Trace(options.trace)) if options.trace else None
            if verbose:
                _tell(console, stream.description)
            bar = ProgressBar(console, stream.info, options.frames, enabled=not json_output and not quiet)
            try:
                with bar, _signals(stream) as received:
                    end_if_deferred()
                    stream.run(_on_frame(bar, trace), frames=options.frames)
            finally:
                for note in [*stream.summary().notes, *(trace.notes if trace else ())]:
                    _tell(console, f"note: {note}", style="yellow", soft_wrap=True)
        if note_outputs:
            outputs.note()
    summary = stream.summary()
    slowest = bottleneck(summary, paced=stream.paced)
    if json_output:
        run_of: dict[str, Any] = {"input": options.source, "outputs": list(targets), "bundle": options.bundle}
        written = dict(zip(targets, stream.written, strict=True))
        counts = summary_json(summary, written, live=isinstance(stream, LiveStream))
        print(json_text(counts | run_of | {"bottleneck": slowest}), flush=True)
    else:
        wrote = [f"wrote {target}" for target in targets if target != "null:"]
        _tell(console, summary_table(summary, wrote, describe_bottleneck(slowest, options.source)))
    return 128 + received[0] if received and stream.interrupted else 0


def _tell(console: Console, what: Any, **style: Any) -> None:
    """Print on standard error without markup. The run goes on if that fails."""
    with suppress(OSError):
        console.print(what, markup=False, highlight=False, **style)


def _end_at_once(number: int) -> None:
    """End a run by a signal before the first frame: everything is closed, and nothing stays behind."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _on_frame(bar: ProgressBar, trace: Trace | None) -> Callable[[Frame, Segmentation | None], None]:
    def note(frame: Frame, segmentation: Segmentation | None) -> None:
        bar.advance()
        if trace is not None:
            trace(frame, segmentation)

    return note


def _check_targets(options: StreamOptions, targets: Sequence[str], frames: str | None, watched: bool) -> None:
    """Refuse outputs that the other options exclude. `frames` is the output that holds the frames themselves."""
    if frames and (watched or options.device != "cpu" or is_live_name(options.source)):
        raise UsageError(
            f"'{frames}' holds the frames themselves, which only a run of a file on the CPU writes: leave out --web, --window, "
            "--record and --device, or record the live source first"
        )
    if options.ids and options.device != "cpu":
        raise UsageError(f"--ids works on the CPU, not on '{options.device}': leave out --device")
    if not options.ids and (named := [target for target in targets if target.endswith(IDS_SUFFIX)]):
        raise UsageError(f"'{named[0]}' is for the ids of instruments, which are not tracked: give --ids too")


def _open(
    options: StreamOptions, outputs: Outputs, targets: Sequence[str], opened: ExitStack, log: Callable[[str], None]
) -> VideoStream:
    """Open the stream: files first, so that a wrong name is reported before the networks are compiled."""
    watched = options.watched
    frames = writes_frames(targets)
    _check_targets(options, targets, frames, watched)
    with interruptible():
        bundle = open_with_classes(options.bundle, options.prompts, options.exemplars, options.input_size)
    classes = bundle.manifest.classes
    if options.follow is not None:
        FollowTarget.parse(options.follow, classes)
    chosen = {prompt.name: prompt.color for prompt in map(parse_prompt, options.prompts) if prompt.color}
    shown, style = overlay_classes(classes, chosen), options.style(classes)
    if watched or is_live_name(options.source):
        with interruptible():
            device_opener(options.device)  # an error now, not in the process that segments
            decoder = live_codecs(options.device).decoder
            wrap = None if decoder is None else lambda context: decoder(context, log)
            options = replace(options, live=replace(options.live, decoder=wrap))
            first = call_interruptibly(lambda: first_source(watchable(options.source), options.live))
            outputs.check(overwrite=options.overwrite)
            bundle = fit_to_source(bundle, options.input_size, first, _engine_settings(options), log)
        live = _open_live(options, targets, first, bundle, Overlay(shown, style), log)
        opened.enter_context(tidy_recordings())
        corrections = open_corrections(options.corrections, bundle, live)
        if options.web is not None:
            opened.enter_context(web_viewer(options.web, live, bundle.manifest.name, corrections))
        if options.window:
            opened.enter_context(window(live, f"cliprl: {live.info.name}", corrections))
        return live
    with interruptible():
        device = open_device(options.device, log)
        for note in device.notes:
            log(note)
        overlay = device.overlay(shown, style)
        source = opened.enter_context(_open_source(options, device, log))
        outputs.check(overwrite=options.overwrite)
        bundle = fit_to_source(bundle, options.input_size, source, _engine_settings(options), log)
    if source.info.live:  # known for http only after opening
        return _open_live(options, targets, source, bundle, Overlay(shown, style), log)
    scene = OutputSpec(source.info, bundle.manifest.classes, options.labels)
    encoding = {"crf": options.crf, "preset": options.preset, "encoders": options.encoders}
    sinks = [opened.enter_context(device.sink(target, scene, **encoding)) for target in targets]
    with interruptible():
        segmenter = device.segmenter(
            bundle,
            steps=options.steps,
            budget_ms=options.budget_ms,
            precision=options.precision,
            threads=options.threads,
            log=log,
        )
    return Stream(
        source,
        TrackingSegmenter(segmenter, segmenter.classes, options.follow) if options.ids else segmenter,
        KeepOriginal(overlay) if frames else overlay,
        sinks,
        status=status_line(bundle.manifest.name, on_host=options.device == "cpu"),
        profiler=device.profiler if options.trace else nullcontext,
        description=describe_run(source, segmenter),
    )


def _engine_settings(options: StreamOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("device", "precision", "threads")}


def _open_source(options: StreamOptions, device: Device, log: Callable[[str], None]) -> FrameSource:
    """Open the input. A signal ends the wait for its data, except with a GPU, whose decoder belongs to its thread."""

    def open_input() -> FrameSource:
        return device.source(options.source, log, stream=options.live.stream)

    return call_interruptibly(open_input) if options.device == "cpu" else open_input()


def _open_live(
    options: StreamOptions,
    targets: Sequence[str],
    first: FrameSource | None,
    bundle: Bundle,
    overlay: Overlay,
    log: Callable[[str], None],
) -> LiveStream:
    codecs = live_codecs(options.device)

    def encoding(name: str, seconds: float) -> LiveEncoding:
        return LiveEncoding(codecs.encoder and codecs.encoder(seconds), name=name, log=log)

    network_encodings = {target: encoding(redact(target), NETWORK_SECONDS) for target in targets if is_stream(target)}

    def open_output(target: str, spec: OutputSpec) -> Sink:
        # In the colors of the data set, not of the overlay.
        spec = replace(spec, classes=bundle.manifest.classes, style=options.labels)
        return open_sink(target, spec, crf=options.crf, preset=options.preset, live=network_encodings.get(target))

    made = Segmenter if options.device == "cpu" else partial(open_device_segmenter, device_opener(options.device))
    settings = {name: getattr(options, name) for name in ("steps", "budget_ms", "precision", "threads")}
    make_segmenter: SegmenterFactory = partial(made, bundle, **settings)
    make: SegmenterFactory = partial(open_tracking, make_segmenter, options.follow) if options.ids else make_segmenter
    openers = dict.fromkeys(targets, open_output)
    network = bundle.manifest.name
    web = options.web is not None
    kind = find_source(options.source)
    waits = web and not options.window and not (kind and kind.generated)
    repeats = web and options.frames is None and not targets  # what is written holds each frame once
    record = options.live.record and replace(options.live.record, encoding=partial(encoding, seconds=RECORDING_SECONDS))
    viewing = replace(options.live, web=web, waits=waits, repeats=repeats, record=record, tracks=options.ids)
    return open_live(watchable(options.source), first, overlay, make, openers, viewing, network=network, log=log)


@contextmanager
def _signals(stream: VideoStream) -> Iterator[list[int]]:
    """Let Ctrl-C, SIGTERM and SIGHUP end the stream with complete files; a second one ends it at once."""
    received: list[int] = []

    def end(number: int) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)
        stream.stop()

    with on_ending_signals(end):
        yield received
