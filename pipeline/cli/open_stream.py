"""Open the stream of a run: of a file, or of a live source with its viewers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cliprl.engines import Bundle, ClassSpec, UsageError
from cliprl.engines.cli.signals import call_interruptibly, interruptible
from cliprl.engines.selection.early_load import EarlyLoad
from cliprl.pipeline.cli.class_selection import fit_to_source, open_with_classes
from cliprl.pipeline.cli.correction_options import open_corrections
from cliprl.pipeline.cli.outputs import Outputs, check_label_style, writes_frames
from cliprl.pipeline.cli.run_options import MARK_FRAMES, StreamOptions, describe_run, status_line
from cliprl.pipeline.cli.viewers import tidy_recordings, watchable, web_viewer, window
from cliprl.pipeline.core.interfaces import FrameSegmenter, OutputSpec, Sink, VideoStream
from cliprl.pipeline.devices.device import Device, device_opener, live_codecs, open_device
from cliprl.pipeline.live.factory import first_source, open_live
from cliprl.pipeline.overlay.original import KeepOriginal
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.overlay.palette import overlay_classes
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.overlay.text import load_font
from cliprl.pipeline.segment.prompts import parse_prompt
from cliprl.pipeline.segment.segmenter import Segmenter
from cliprl.pipeline.sinks import open_sink
from cliprl.pipeline.sinks.labels.masks import IDS_SUFFIX
from cliprl.pipeline.sinks.registry import find_sink, is_stream
from cliprl.pipeline.sinks.video.live_encoding import LiveEncoding, Quality
from cliprl.pipeline.sources import FrameSource, ImageSource
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.registry import find_source, is_live_name
from cliprl.pipeline.stream.stream import Stream

if TYPE_CHECKING:
    from cliprl.engines.promptable.video import VideoNetwork
    from cliprl.pipeline.live.segmentation.worker import SegmenterFactory
    from cliprl.pipeline.live.stream import LiveStream

# Seconds that outputs wait for the encoder of a GPU to start: less than a recording's queue holds; a network stream begins later.
RECORDING_SECONDS, NETWORK_SECONDS = 1.0, 10.0


def _takes_live_path(options: StreamOptions) -> bool:
    return options.watched or is_live_name(options.source)


def _check_targets(options: StreamOptions) -> None:
    """Refuse outputs that the other options exclude."""
    frames = writes_frames(options.outputs)
    if frames and (_takes_live_path(options) or options.device != "cpu"):
        raise UsageError(
            f"'{frames}' holds the frames themselves, which only a run of a file on the CPU writes: leave out --web, --window, "
            "--record and --device, or record the live source first"
        )
    if options.ids and options.device != "cpu":
        raise UsageError(f"--ids works on the CPU, not on '{options.device}': leave out --device")
    if options.tracker is not None and (options.follow is None or _takes_live_path(options)):
        raise _without_file_to_follow_in(options)
    check_label_style(options.outputs, options.labels)
    kinds = map(find_sink, options.outputs)
    if options.encoders and (_takes_live_path(options) or not any(kind and kind.is_video for kind in kinds)):
        raise UsageError(
            f"--encoders {options.encoders} is for a video file that a run of a file writes: leave it out, or give -o NAME.mp4 "
            "without --web, --window and --record"
        )
    if not options.ids and (named := [target for target in options.outputs if target.endswith(IDS_SUFFIX)]):
        raise UsageError(f"'{named[0]}' is for the ids of instruments, which are not tracked: give --ids too")


def _without_file_to_follow_in(options: StreamOptions) -> UsageError:
    return UsageError(
        f"--tracker '{options.tracker}' is slower than video: give a file as INPUT and --follow WORDS or FRAME#X,Y, without "
        "--web, --window and --record"
    )


def open_video_stream(
    options: StreamOptions,
    outputs: Outputs,
    opened: ExitStack,
    log: Callable[[str], None],
    networks: EarlyLoad | None = None,
) -> VideoStream:
    """Open the stream: files first, so that a wrong name is reported before the networks are compiled.

    `networks`: those of `options`, if they are being loaded already.
    """
    _check_targets(options)
    with interruptible():
        settings = options.bundle, options.prompts, options.exemplars, options.input_size
        bundle = networks.bundle() if networks else open_with_classes(*settings)
    classes = bundle.manifest.mask_classes
    if options.follow is not None:
        from cliprl.pipeline.tracking.follow import FollowTarget

        FollowTarget.parse(options.follow, classes)
    chosen = {prompt.name: prompt.color for prompt in map(parse_prompt, options.prompts) if prompt.color}
    drawn = overlay_classes(classes, chosen), options.style(classes)
    if _takes_live_path(options):
        return _open_viewed(options, outputs, bundle, drawn, opened, log)
    return _open_stored(options, outputs, bundle, drawn, opened, log, networks)


def _open_viewed(
    options: StreamOptions,
    outputs: Outputs,
    bundle: Bundle,
    drawn: tuple[Sequence[ClassSpec], Style],
    opened: ExitStack,
    log: Callable[[str], None],
) -> VideoStream:
    """Open the stream of a live source, or one that is displayed or recorded, with its viewers."""
    with interruptible():
        device_opener(options.device)  # an error now, not in the process that segments
        decoder = live_codecs(options.device).decoder
        wrap = None if decoder is None else lambda context: decoder(context, log)
        options = replace(options, live=replace(options.live, decoder=wrap))
        first = call_interruptibly(lambda: first_source(watchable(options.source), options.live))
        outputs.check(overwrite=options.overwrite)
        bundle = fit_to_source(bundle, options.input_size, first, _engine_settings(options), log)
    live = _open_live(options, first, bundle, Overlay(*drawn), log)
    opened.enter_context(tidy_recordings())
    corrections = open_corrections(options.corrections, bundle, live)
    if options.web is not None:
        opened.enter_context(
            web_viewer(options.web, live, bundle.manifest.name, corrections, proxy_url=options.web_url)
        )
    if options.window:
        opened.enter_context(window(live, f"cliprl: {live.info.name}", corrections))
    return live


def _open_stored(
    options: StreamOptions,
    outputs: Outputs,
    bundle: Bundle,
    drawn: tuple[Sequence[ClassSpec], Style],
    opened: ExitStack,
    log: Callable[[str], None],
    networks: EarlyLoad | None,
) -> VideoStream:
    """Open the stream of a file, every frame of which is written; or of an address that turns out to be live."""
    with interruptible():
        device = open_device(options.device, log)
        for note in device.notes:
            log(note)
        overlay = device.overlay(*drawn)
        source = opened.enter_context(_open_source(options, device, log))
        outputs.check(overwrite=options.overwrite)
        bundle = fit_to_source(bundle, options.input_size, source, _engine_settings(options), log)
    if source.info.live:  # known for http only after opening
        if options.tracker is not None:
            raise _without_file_to_follow_in(options)
        return _open_live(options, source, bundle, Overlay(*drawn), log)
    video_network = _open_video_network(options)
    spec = OutputSpec(source.info, bundle.manifest.mask_classes, options.labels)
    encoding = {"crf": options.crf, "preset": options.preset, "encoders": options.encoders}

    def open_output(target: str) -> Sink:
        return device.sink(target, spec, **encoding)

    sinks = [opened.enter_context(_output_of_file(target, open_output, log)) for target in options.outputs]
    with interruptible():
        if networks:
            load_font()  # for the first frame, while they load
        engines = {"engines": networks.engines(log)} if networks else {}
        segmenter = device.segmenter(bundle, **_segmenter_settings(options), **engines, log=log)
    return Stream(
        source,
        _tracked(segmenter, options, video_network) if options.ids else segmenter,
        KeepOriginal(overlay) if writes_frames(options.outputs) else overlay,
        sinks,
        status=status_line(bundle.manifest.name, 1 if isinstance(source, ImageSource) else MARK_FRAMES),
        profiler=device.profiler if options.trace else nullcontext,
        description=describe_run(source, segmenter),
        realtime=any(map(is_stream, options.outputs)),
    )


def _output_of_file(target: str, open_output: Callable[[str], Sink], log: Callable[[str], None]) -> Sink:
    """Open an output of a run of a file. A network stream must not hold up the others: it is written on another thread."""
    sink = open_output(target)
    if not is_stream(target):
        return sink
    sink.close()  # opened only to report a bad name at once
    from cliprl.pipeline.live.sink_thread import ThreadedSink

    return ThreadedSink(lambda: open_output(target), name=redact(target), log=log)


def _open_video_network(options: StreamOptions) -> VideoNetwork | None:
    if options.tracker is None:
        return None
    from cliprl.engines.promptable.video import open_video_network

    with interruptible():
        return open_video_network(options.tracker, options.threads)


def _tracked(segmenter: Segmenter, options: StreamOptions, video_network: VideoNetwork | None) -> FrameSegmenter:
    from cliprl.pipeline.tracking.segmenter import TrackingSegmenter

    return TrackingSegmenter(segmenter, segmenter.classes, options.follow, video_network)


def _engine_settings(options: StreamOptions) -> dict[str, Any]:
    return {"device": options.device, "precision": options.precision, "threads": options.threads}


def _segmenter_settings(options: StreamOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("steps", "budget_ms", "precision", "threads")}


def _open_source(options: StreamOptions, device: Device, log: Callable[[str], None]) -> FrameSource:
    """Open the input. A signal ends the wait for its data, except with a GPU, whose decoder belongs to its thread."""

    def open_input() -> FrameSource:
        return device.source(options.source, log, stream=options.live.stream)

    return call_interruptibly(open_input) if options.device == "cpu" else open_input()


def _open_live(
    options: StreamOptions,
    first: FrameSource | None,
    bundle: Bundle,
    overlay: Overlay,
    log: Callable[[str], None],
) -> LiveStream:
    codecs, targets = live_codecs(options.device), options.outputs

    def encoding(name: str, seconds: float) -> LiveEncoding:
        return LiveEncoding(codecs.encoder and codecs.encoder(seconds), name=name, log=log)

    network_encodings = {target: encoding(redact(target), NETWORK_SECONDS) for target in targets if is_stream(target)}

    def open_output(target: str, spec: OutputSpec) -> Sink:
        # In the colors of the data set, not of the overlay.
        spec = replace(spec, classes=bundle.manifest.mask_classes, style=options.labels)
        return open_sink(target, spec, crf=options.crf, preset=options.preset, live=network_encodings.get(target))

    from cliprl.pipeline.live.segmentation.device_segmenter import open_device_segmenter
    from cliprl.pipeline.tracking.segmenter import open_tracking

    made = Segmenter if options.device == "cpu" else partial(open_device_segmenter, device_opener(options.device))
    make_segmenter: SegmenterFactory = partial(made, bundle, **_segmenter_settings(options))
    make: SegmenterFactory = partial(open_tracking, make_segmenter, options.follow) if options.ids else make_segmenter
    openers = dict.fromkeys(targets, open_output)
    network = bundle.manifest.name
    web = options.web is not None
    kind = find_source(options.source)
    waits = web and not options.window and not (kind and kind.generated)
    repeats = web and options.frames is None and not targets  # what is written holds each frame once
    record = options.live.record and replace(options.live.record, encoding=partial(encoding, seconds=RECORDING_SECONDS))
    viewing = replace(options.live, web=web, waits=waits, repeats=repeats, record=record, tracks=options.ids)
    quality = None if codecs.encoder else Quality(options.crf, options.preset)
    return open_live(
        watchable(options.source), first, overlay, make, openers, viewing, network=network, quality=quality, log=log
    )
