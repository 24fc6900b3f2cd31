"""From the command line's options to a live stream."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from cliprl.engines import CliprlError, UsageError, ignore_message
from cliprl.pipeline.core.interfaces import OutputSpec, Sink, Source, StreamInfo
from cliprl.pipeline.core.passthrough import without_audio
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display_loop import DisplayPolicy
from cliprl.pipeline.live.equip import Equip
from cliprl.pipeline.live.playback import Playback, open_file_at
from cliprl.pipeline.live.recording.recorder import RecordOptions, recordings
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.live.stream import LiveStream, info_of
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.sinks.group import check_sink
from cliprl.pipeline.sinks.network.network_sink import is_network
from cliprl.pipeline.sinks.network.virtual_camera import DEVICES
from cliprl.pipeline.sources import FrameSource, VideoSource, open_source
from cliprl.pipeline.sources.errors import redact
from cliprl.pipeline.sources.stdin import STDIN

# A frame of a file waits for its own mask, for this share of the time until the next is due.
_FILE_WAIT = 0.8


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a live source is shown. See the command's help for each.

    reconnect: None: once the source has been seen. wait_ms: None: not at all for a camera, most of a frame for a file.
    web: a file is played for the page; `waits`: it waits for the first viewer; `repeats`: it can be replayed and sought in.
    record: what and where, None where it can't be switched on; `recording` is on from the start.
    stream: the index of the video stream to show, None for the best.
    """

    max_age_ms: float = 250.0
    wait_ms: float | None = None
    reconnect: bool | None = None
    guard: bool = True
    record: RecordOptions | None = None
    recording: bool = False
    stream: int | None = None
    web: bool = False
    waits: bool = False
    repeats: bool = False


def first_source(name: str, options: LiveOptions) -> FrameSource | None:
    """The source, open; None where it is not there yet and `reconnect` says to wait for it. Raises what `open_source` does."""
    try:
        return open_source(name, stream=options.stream)
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
    equip: Equip,
    openers: Mapping[str, Callable[[OutputSpec], Sink]],
    options: LiveOptions,
    *,
    network: str,
    say: Callable[[str], None] = ignore_message,
) -> LiveStream:
    """The live stream of the source called `name`, of which `first` is open already; `openers` are those of its outputs."""
    playback = _playback(name, first, options)
    camera = LiveCapture(
        lambda: open_source(name, stream=options.stream),
        playback or first,
        name=redact(name),
        reconnect=options.reconnect is not False,
    )
    waiting = 0.0 if camera.live else _FILE_WAIT * 1000 * camera.period
    promise = DisplayPolicy(options.max_age_ms, waiting if options.wait_ms is None else options.wait_ms, options.guard)
    style = overlay.style
    settings = Settings(style.opacity, style.contours, recording=options.recording)
    if first is not None:
        for opener in openers.values():  # tried first, so that a bad name is told before the stream starts
            sink = opener(OutputSpec(_displayed(first.info), overlay.classes))
            check_sink(sink)
            sink.close()
    return LiveStream(
        camera,
        overlay,
        Supervisor(equip, len(overlay.classes)),
        tuple(_outlet(target, opener, camera, overlay) for target, opener in openers.items()),
        recordings=recordings(options.record, lambda: camera.info) if options.record else (),
        controls=Controls(overlay.classes, settings),
        promise=promise,
        name=network,
        playback=playback,
        say=say,
    )


def _playback(name: str, first: FrameSource | None, options: LiveOptions) -> Playback | None:
    """How a file is played on the page; None for anything that is live, or is not shown there."""
    if first is None or first.info.live or not options.web:
        return None
    if name == STDIN or (os.path.exists(name) and not os.path.isfile(name)):  # a pipe is read as it comes
        return None

    def open_at(seconds: float) -> Source:
        return open_file_at(name, seconds if isinstance(first, VideoSource) else 0.0, options.stream)

    return Playback(first, open_at, repeats=options.repeats, waits=options.waits)


def _outlet(target: str, opener: Callable[[OutputSpec], Sink], camera: LiveCapture, overlay: Overlay) -> SinkThread:
    network = is_network(target) or target.startswith(DEVICES)
    return SinkThread(
        lambda: opener(OutputSpec(_displayed(info_of(camera)), overlay.classes)), name=redact(target), network=network
    )


def _displayed(info: StreamInfo) -> StreamInfo:
    """A stream whose pictures are written when they are displayed: what has the times of the input can't go with them."""
    reason = "pictures are written at the time of their display; run without --web, --window and --record to keep it"
    return info if info.live else replace(info, passthrough=without_audio(info.passthrough, reason))


def record_options(folder: Path, what: str, minutes: float, crf: int, preset: str) -> RecordOptions:
    """What and where to record. Raises UsageError for segments of no length."""
    if not minutes > 0:
        raise UsageError(f"segments of {minutes:g} minutes hold nothing: give a length above 0")
    return RecordOptions(folder, what, minutes, crf, preset)
