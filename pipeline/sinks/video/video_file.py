"""Video files: H.264 in MP4, QuickTime or Matroska, with the audio of the source."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.sinks.atomic_file import PartialFile
from cliprl.pipeline.sinks.base import FileSink
from cliprl.pipeline.sinks.registry import EncoderSettings, register_sink
from cliprl.pipeline.sinks.video.encoder import PRESETS, VideoEncoder
from cliprl.pipeline.sinks.video.muxer import Muxer

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
HIGHEST_CRF, MOST_ENCODERS = 51, 64


class VideoSink(FileSink):
    """Encodes every frame with libx264, with its own time to the tick, and carries over `spec.stream.passthrough`.

    MP4 and QuickTime files are written in fragments of a second and become plain files at the end: one that was cut off, by a
    full disk or a killed process, plays up to its last second under its partial name. Matroska counts in milliseconds; a
    note is given where that changes a time. `crf` is the quality, 0 lossless and 51 the worst (see `quality_options`);
    `preset` one of x264's, faster for larger files; `threads` 0 gives x264 as many as suit a stream. `encoder` makes another
    encoder, of the libav codec `codec`. With more than one of `encoders`, as many encode at once (see `ParallelEncoder`).
    `needs_planes`: the frames' planes in host memory are read.
    """

    needs_planes = True

    failures = (OSError, av.FFmpegError)

    def __init__(
        self,
        target: Path,
        spec: OutputSpec,
        *,
        crf: float = 23,
        preset: str = "ultrafast",
        threads: int = 0,
        encoders: int = 0,
        encoder: Callable[..., VideoEncoder] = VideoEncoder,
        codec: str = "libx264",
    ) -> None:
        """Create the partial file. Raises UsageError if it can't be, and for a bad option."""
        super().__init__(target)
        if target.name.lower() in CONTAINERS:
            raise UsageError(f"'{target}' is an ending without a name: name it as in overlay{target.name}")
        if target.suffix.lower() not in CONTAINERS:
            raise UsageError(f"'{target}' is not a video file: name it {', '.join(CONTAINERS)}")
        if preset not in PRESETS:
            raise UsageError(f"preset '{preset}' is unknown: use one of {', '.join(PRESETS)}")
        if not 0 <= crf <= HIGHEST_CRF:
            raise UsageError(f"crf {crf:g} is out of range: give 0 (lossless) to {HIGHEST_CRF}")
        if not 0 <= encoders <= MOST_ENCODERS:
            raise UsageError(
                f"{encoders} encoders are out of range: give 1 to {MOST_ENCODERS}, or 0 for as many as suit"
            )
        if encoders > 1:
            from cliprl.pipeline.sinks.video.parallel_encoder import ParallelEncoder

            encoder = partial(ParallelEncoder, encoders=encoders)
        self.info = spec.stream
        self._settings: dict[str, Any] = {"crf": crf, "preset": preset, "threads": threads}
        self._make, self._codec = encoder, codec
        self._format = CONTAINERS[target.suffix.lower()]
        self._file = PartialFile(target)
        self.notes += self._file.notes
        self._disk_failed = False
        self._frames_end = 0  # the index after the last frame's
        self._muxer = Muxer(self._file, self._format, spec.stream.passthrough)
        self._encoder: VideoEncoder | None = None

    def _open(self, first: Frame) -> VideoEncoder:
        first.check_planes()
        stream = self.open_stream(self._codec, first.time_base)
        return self._make(stream, first, self.info, **self._settings)

    def open_stream(self, codec: str, time_base: Fraction) -> Any:
        """Open the file's stream for a codec of libav; again, in place of the one before, until a packet is written."""
        return self._muxer.open(codec, time_base)

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        if self._encoder is None:
            self._encoder = self._open(frame)
        if self._format == "matroska":
            self._check_milliseconds(frame, self._encoder)
        packets = self._encoder.encode(frame)
        self._muxer.mux(packets, self._encoder.reached, self._encoder.shift)
        self._frames_end = frame.index + 1

    def _check_milliseconds(self, frame: Frame, encoder: VideoEncoder) -> None:
        if (frame.pts * frame.time_base * 1000).denominator > 1:
            note = "Matroska keeps times to the millisecond only: name the output .mp4 or .mov to keep them to the tick"
            encoder.notes.setdefault("milliseconds", note)

    def _finish(self, whole: bool) -> None:
        assert self._encoder is not None  # there is a frame
        for packets in self._encoder.remaining():
            self._muxer.mux(packets, self._encoder.reached, self._encoder.shift)
        self._muxer.finish(self._encoder.flush(), self._encoder.end, self._frames_end)
        self._collect_notes()
        if whole:
            self._file.publish()
        else:
            self._file.keep()

    def _collect_notes(self) -> None:
        self.notes += [] if self._encoder is None else self._encoder.notes.values()
        self.notes += self._muxer.notes

    def _abandon(self) -> None:
        # Nothing of what libav does to tidy up may reach the file: it can be read as it is.
        self._disk_failed = self._file.error is not None
        self._file.error = self._file.error or OSError("abandoned")
        if self._encoder is not None:
            self._encoder.close()
        self._muxer.abandon()
        self._collect_notes()
        self._file.keep()

    def _remedy(self) -> str:
        return super()._remedy() if self._disk_failed else "choose another container, such as .mkv"

    def _discard(self) -> None:
        self._muxer.abandon()
        self._file.discard()

    def _place(self) -> Path | None:
        return self._file.partial


@register_sink(suffixes=tuple(CONTAINERS), help="video with the unchanged audio of the source", is_video=True)
def open_video(target: str, spec: OutputSpec, settings: EncoderSettings) -> VideoSink:
    """Open a video file."""
    threads, encoders = settings.threads, settings.encoders
    return VideoSink(Path(target), spec, crf=settings.crf, preset=settings.preset, threads=threads, encoders=encoders)
