"""Construction of a live stream from the options of the command line."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cliprl.engines import CliprlError, UsageError, ignore_message
from cliprl.pipeline.core.interfaces import OutputSpec, Sink, Source, StreamInfo
from cliprl.pipeline.core.passthrough import without_audio
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.sinks.group_errors import check_sink
from cliprl.pipeline.sinks.registry import is_h264_stream, is_stream, sink_suffix, writes_files
from cliprl.pipeline.sources import FrameSource, VideoSource, open_source
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.stdin import is_stdin

if TYPE_CHECKING:  # a run that is not live starts a twentieth sooner without these modules
    from cliprl.pipeline.live.capture import LiveCapture
    from cliprl.pipeline.live.playback import Playback
    from cliprl.pipeline.live.recording.recorder import RecordOptions
    from cliprl.pipeline.live.segmentation.worker import SegmenterFactory
    from cliprl.pipeline.live.sink_thread import SinkThread
    from cliprl.pipeline.live.stream import LiveStream
    from cliprl.pipeline.sinks.video.live_encoding import Quality

# Opens an output: given the name of the file and the stream's properties.
OutputOpener = Callable[[str, OutputSpec], Sink]
# Share of the frame period for which a frame of a file waits for its own mask.
_FILE_WAIT = 0.8


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """Options of a live stream. See the command's help for each.

    reconnect: None: only after the source has delivered frames. wait_ms: None: 0 for a camera, most of a frame period for a
    file. web: a file is played for the page; `waits`: it waits for the first viewer; `repeats`: it can be replayed and sought
    in. record: what and where to record, None if recording is not available; `recording`: it is on from the start.
    stream: the index of the video stream, None for the best. decoder: see `SourceOptions`. tracks: the segmenter tracks
    instruments, and viewers can choose one to follow.
    """

    max_age_ms: float = 250.0
    wait_ms: float | None = None
    reconnect: bool | None = None
    guard: bool = True
    record: RecordOptions | None = None
    recording: bool = False
    stream: int | None = None
    decoder: Callable[[Any], Any] | None = None
    web: bool = False
    waits: bool = False
    repeats: bool = False
    tracks: bool = False


def first_source(name: str, options: LiveOptions) -> FrameSource | None:
    """Open the source. Return None if it is not available yet and `reconnect` is set. Raises what `open_source` does."""
    try:
        return open_source(name, stream=options.stream, decoder=options.decoder)
    except UsageError:
        raise
    except CliprlError:
        if options.reconnect:
            return None
        raise


def open_live(
    name: str,
    first: FrameSource | None,
    overlay: Overlay,
    make_segmenter: SegmenterFactory,
    openers: Mapping[str, OutputOpener],
    options: LiveOptions,
    *,
    network: str,
    quality: Quality | None = None,
    log: Callable[[str], None] = ignore_message,
) -> LiveStream:
    """Return the live stream of the source `name`, which `first` has open already. `openers` open the outputs, by target.

    An opener gets the name of the file to write: the target, or that of a further part after a fault. quality: of the H.264 of
    network outputs, if it may be shared.
    """
    from cliprl.pipeline.live.capture import LiveCapture
    from cliprl.pipeline.live.controls import Controls, Settings
    from cliprl.pipeline.live.display_loop import DisplayPolicy
    from cliprl.pipeline.live.follow_control import FollowControl
    from cliprl.pipeline.live.recording.recorder import recordings
    from cliprl.pipeline.live.segmentation.supervisor import Supervisor
    from cliprl.pipeline.live.stream import LiveStream

    playback = _playback(name, first, options)
    capture = LiveCapture(
        lambda: open_source(name, stream=options.stream, decoder=options.decoder),
        playback or first,
        name=redact(name),
        reconnect=options.reconnect is not False,
    )
    wait_ms = 0.0 if capture.live else _FILE_WAIT * 1000 * capture.period
    policy = DisplayPolicy(options.max_age_ms, wait_ms if options.wait_ms is None else options.wait_ms, options.guard)
    style = overlay.style
    settings = Settings.of(style, overlay.classes, recording=options.recording)
    opened = {} if first is None else _tried(openers, OutputSpec(_displayed(first.info), overlay.classes))
    return LiveStream(
        capture,
        overlay,
        Supervisor(make_segmenter, len(overlay.classes), follow=FollowControl() if options.tracks else None),
        tuple(
            _output(target, opener, opened.get(target), capture, overlay, quality, log)
            for target, opener in openers.items()
        ),
        recordings=recordings(options.record, lambda: capture.info) if options.record else (),
        controls=Controls(overlay.classes, settings),
        policy=policy,
        name=network,
        playback=playback,
        log=log,
    )


def _playback(name: str, first: FrameSource | None, options: LiveOptions) -> Playback | None:
    """Return the playback of a file on the page; None for a live source, or without the page."""
    from cliprl.pipeline.live.playback import Playback, open_file_at

    if first is None or first.info.live or not options.web:
        return None
    if is_stdin(name) or (os.path.exists(name) and not os.path.isfile(name)):  # a pipe can't be sought in
        return None

    def open_at(seconds: float) -> Source:
        return open_file_at(name, seconds if isinstance(first, VideoSource) else 0.0, options.stream)

    return Playback(first, open_at, repeats=options.repeats, waits=options.waits)


def _tried(openers: Mapping[str, OutputOpener], spec: OutputSpec) -> dict[str, Sink]:
    """Open each output, so that a bad name is an error before the stream starts. Return those to write to, which stay open.

    These are pipes: the reader of one would take the end of a trial for that of the stream.
    """
    kept = {}
    for target, opener in openers.items():
        sink = opener(target, spec)
        check_sink(sink)
        if writes_files(target) and not _has_parts(target):
            kept[target] = sink
        else:
            sink.close()
    return kept


def _output(
    target: str,
    opener: OutputOpener,
    opened: Sink | None,
    capture: LiveCapture,
    overlay: Overlay,
    quality: Quality | None,
    log: Callable[[str], None],
) -> SinkThread:
    from cliprl.pipeline.live.sink_thread import SinkThread
    from cliprl.pipeline.live.stream import info_of

    network = is_stream(target)

    def open_part(name: str) -> Sink:
        return opener(name, OutputSpec(_displayed(info_of(capture)), overlay.classes))

    return SinkThread(
        lambda: opened or open_part(target),
        name=redact(target),
        network=network,
        quality=quality if is_h264_stream(target) else None,
        log=log,
        open_next=(lambda: open_part(next_part(target))) if not network and _has_parts(target) else None,
    )


def _has_parts(target: str) -> bool:
    """Return whether a further part can be written after a fault: not for a pipe or a device."""
    return writes_files(target) and (not os.path.exists(target) or os.path.isfile(target) or os.path.isdir(target))


def next_part(target: str) -> str:
    """Return the name of a further part of an output that nothing has: `out.part2.mkv`, `masks.part2/`, and so on.

    It ends as the target does, by which its kind is known: `out.part2.cvat.xml`, `out.part2.ids/`.
    """
    path, ending = Path(target), sink_suffix(target)
    place = len(path.name) - len(ending.removesuffix("/"))
    for number in count(2):
        part = path.with_name(f"{path.name[:place]}.part{number}{path.name[place:]}")
        if not os.path.lexists(part):
            return f"{part}/" if ending.endswith("/") else str(part)
    raise AssertionError("unreachable")


def _displayed(info: StreamInfo) -> StreamInfo:
    """Return the properties of the displayed stream: sound and chapters are left out, because they have the input's times."""
    reason = "frames are written at the time of their display; run without --web, --window and --record to keep it"
    return info if info.live else replace(info, passthrough=without_audio(info.passthrough, reason))


def record_options(folder: Path, what: str, minutes: float, crf: int, preset: str) -> RecordOptions:
    """Return the options of a recording. Raises UsageError for segments without length."""
    from cliprl.pipeline.live.recording.recorder import RecordOptions

    if not minutes > 0:
        raise UsageError(f"segments of {minutes:g} minutes are empty: give a length above 0")
    return RecordOptions(folder, what, minutes, crf, preset)
