"""A video file: H.264 in MP4, QuickTime or Matroska, with the sound of the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Any

import av
from av.packet import Packet

from cliprl.engines import UsageError
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.protocols import Scene
from cliprl.pipeline.segmentation import Segmentation
from cliprl.pipeline.sinks.audio import AudioCopy
from cliprl.pipeline.sinks.base import FileSink
from cliprl.pipeline.sinks.encoder import PRESETS, VideoEncoder
from cliprl.pipeline.sinks.partial import PartialFile

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
HIGHEST_CRF = 51
# Bytes that libav collects before it calls `write`.
_BUFFER = 1 << 18
_LARGEST_TIMESCALE = 2**31 - 1
# In microseconds. Sound that is missing or late must not make pictures wait in memory for long.
_SECOND = "1000000"


class VideoSink(FileSink):
    """Encodes every frame with libx264, with its own time to the tick, and copies the audio of `scene.stream.audio_path`.

    MP4 and QuickTime files are written in fragments of a second and become plain files at the end: one that was cut off, by a
    full disk or a killed process, plays up to its last second under its partial name. Matroska counts in milliseconds; a
    note says so where that changes a time. `crf` is x264's constant rate factor: 0 is lossless, 51 the worst;
    `preset` one of x264's, faster for larger files; `threads` 0 gives x264 as many as suit a stream. `encoder` makes another
    encoder, of the libav codec `codec`. `takes_pictures`: the frames' planes in host memory are read.
    """

    takes_pictures = True

    failures = (OSError, av.FFmpegError)

    def __init__(
        self,
        target: Path,
        scene: Scene,
        *,
        crf: float = 23,
        preset: str = "ultrafast",
        threads: int = 0,
        encoder: Callable[..., VideoEncoder] = VideoEncoder,
        codec: str = "libx264",
    ) -> None:
        """Create the partial file. Raises UsageError where it can't be, and for a bad option."""
        super().__init__(target)
        if target.suffix.lower() not in CONTAINERS:
            raise UsageError(f"'{target}' is no video file: name it {', '.join(CONTAINERS)}")
        if preset not in PRESETS:
            raise UsageError(f"preset '{preset}' is unknown: one of {', '.join(PRESETS)}")
        if not 0 <= crf <= HIGHEST_CRF:
            raise UsageError(f"crf {crf:g} is out of range: 0 (lossless) to {HIGHEST_CRF}")
        self.info = scene.stream
        self._settings: dict[str, Any] = {"crf": crf, "preset": preset, "threads": threads}
        self._make, self._codec = encoder, codec
        self._format = CONTAINERS[target.suffix.lower()]
        self._file = PartialFile(target)
        self._disk_failed = False
        self._container: Any = None
        self._encoder: VideoEncoder | None = None
        self._audio: AudioCopy | None = None

    def _open(self, first: Frame) -> VideoEncoder:
        if self.info.audio_path and not self.info.live:
            self._audio = AudioCopy(self.info.audio_path, self._format)
        options = _muxer_options(self._format, first.time_base, self._audio.clock if self._audio else 1)
        self._container = av.open(self._file, "w", format=self._format, container_options=options, buffer_size=_BUFFER)
        stream = self._container.add_stream(self._codec)
        encoder = self._make(stream, first, self.info, **self._settings)
        if self._audio:
            self._audio.attach(self._container, encoder.shift)
        return encoder

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        if self._encoder is None:
            self._encoder = self._open(frame)
        if self._format == "matroska":
            self._check_milliseconds(frame, self._encoder)
        packets = self._encoder.encode(frame)
        if self._audio:
            self._mux_audio(self._audio, self._audio.until(frame.pts * frame.time_base))
        self._container.mux(packets)

    def _mux_audio(self, audio: AudioCopy, packets: Iterable[Packet[Any]]) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
        except (ValueError, av.FFmpegError) as error:
            if self._file.error:
                raise
            audio.fail(error)  # a packet that the container can't take, such as one out of order

    def _check_milliseconds(self, frame: Frame, encoder: VideoEncoder) -> None:
        if (frame.pts * frame.time_base * 1000).denominator > 1:
            note = "Matroska keeps times to the millisecond only: name the output .mp4 or .mov to keep them to the tick"
            encoder.notes.setdefault("milliseconds", note)

    def _finish(self, whole: bool) -> None:
        assert self._encoder is not None  # there is a frame
        self._container.mux(self._encoder.flush())
        if self._audio:
            self._mux_audio(self._audio, self._audio.rest(self._encoder.end))
        self._container.close()
        self._collect_notes()
        if whole:
            self._file.publish()
        else:
            self._file.keep()

    def _collect_notes(self) -> None:
        self.notes += [] if self._encoder is None else self._encoder.notes.values()
        self.notes += [] if self._audio is None else self._audio.notes

    def _abandon(self) -> None:
        # Nothing of what libav does to tidy up may reach the file: it can be read as it is.
        self._disk_failed = self._file.error is not None
        self._file.error = self._file.error or OSError("abandoned")
        self._collect_notes()
        if self._audio:
            self._audio.close()
        if self._container is not None:
            with suppress(OSError, ValueError, av.FFmpegError):
                self._container.close()
        self._file.keep()

    def _remedy(self) -> str:
        return super()._remedy() if self._disk_failed else "choose another container, such as .mkv"

    def _discard(self) -> None:
        self._file.discard()

    def _place(self) -> Path | None:
        return self._file.partial


def _muxer_options(container: str, time_base: Fraction, clock: int) -> dict[str, str]:
    """Options under which times stay what they are, and an unfinished file can be read."""
    if container == "matroska":
        # The padding before a file's first sound has negative times; moving all times up by it would move the pictures.
        return {"avoid_negative_ts": "disabled", "max_interleave_delta": _SECOND, "cluster_time_limit": "1000"}
    ticks = time_base.denominator
    movie = lcm(ticks, clock)
    return {
        "max_interleave_delta": _SECOND,
        # The empty header at the start makes a cut-off file readable, though its times then count from its first frame.
        "movflags": "hybrid_fragmented+empty_moov",
        "frag_duration": _SECOND,
        "use_editlist": "1",
        "video_track_timescale": str(ticks),
        # Edit lists, which hold the start times of the tracks, count in these.
        "movie_timescale": str(movie if movie <= _LARGEST_TIMESCALE else ticks),
    }
