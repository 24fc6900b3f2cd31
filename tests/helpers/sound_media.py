"""Tiny clips with any sound, tags and chapters in any container that libav writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from media import moving, video_frame

FRAMES, RATE, SIZE = 12, 25, (64, 48)
SECONDS = FRAMES / RATE
SAMPLE_RATE = 48000
# The name of a container's files, and libav's muxer and a quick video codec for it.
CONTAINERS = {
    "mp4": ("mp4", "mpeg4"),
    "mov": ("mov", "mpeg4"),
    "mkv": ("matroska", "mpeg4"),
    "avi": ("avi", "mpeg4"),
    "ts": ("mpegts", "mpeg2video"),
    "m2ts": ("mpegts", "mpeg2video"),
    "mpg": ("vob", "mpeg2video"),
    "flv": ("flv", "flv"),
    "webm": ("webm", "libvpx"),
    "mxf": ("mxf", "mpeg2video"),
    "nut": ("nut", "mpeg4"),
    "wmv": ("asf", "wmv2"),
}
_ENCODERS = {"mp3": "libmp3lame", "opus": "libopus"}
_EXPERIMENTAL = ("vorbis",)
_BIT_RATE = 128_000
_CHAPTER = Fraction(1, 1000)


def make_media(
    path: Path,
    *,
    audio: Sequence[str] = (),
    layout: str = "mono",
    tags: Mapping[str, str] | None = None,
    chapters: Sequence[tuple[int, int, str]] = (),
    frames: int = FRAMES,
    audio_start: float = 0.0,
    audio_seconds: float | None = None,
) -> Path:
    """Write `frames` small pictures, and a tone for each codec of `audio`; chapters are (start, end in ms, title).

    Picture and sound are interleaved. Raises ValueError or av.FFmpegError where the container does not take the codec.
    """
    muxer, codec = CONTAINERS[path.suffix[1:]]
    options = {"mpegts_m2ts_mode": "1"} if path.suffix == ".m2ts" else {}
    with av.open(str(path), "w", format=muxer, container_options=options) as output:
        output.metadata.update(tags or {})
        output.set_chapters([_chapter(number, *chapter) for number, chapter in enumerate(chapters)])
        video: Any = output.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        sounds = [_Sound(output, name, layout, audio_start) for name in audio]
        output.start_encoding()  # a muxer that refuses is not asked again: libav crashes then
        for index in range(frames):
            image = video_frame(moving(index, SIZE[1], SIZE[0]))
            image.pts, image.time_base = index, Fraction(1, RATE)
            output.mux(video.encode(image))
            for sound in sounds:
                sound.play(min((index + 1) / RATE, audio_seconds or frames / RATE))
        output.mux(video.encode())
        for sound in sounds:
            sound.play(audio_seconds or frames / RATE)
            sound.end()
    return path


def _chapter(number: int, start: int, end: int, title: str) -> dict[str, Any]:
    return {"id": number + 1, "start": start, "end": end, "time_base": _CHAPTER, "metadata": {"title": title}}


class _Sound:
    """A tone in one audio stream of an output."""

    def __init__(self, output: Any, codec: str, layout: str, start: float) -> None:
        self._output = output
        self._stream = output.add_stream(_ENCODERS.get(codec, codec), rate=SAMPLE_RATE)
        context = self._stream.codec_context
        context.layout = layout
        context.bit_rate = _BIT_RATE
        if codec in _EXPERIMENTAL:
            context.options = {"strict": "-2"}
        self._layout, self._format = layout, context.format.name
        self._resampler: Any = None
        self._done = self._first = round(start * SAMPLE_RATE)

    def play(self, seconds: float) -> None:
        """Write the tone up to a time."""
        size = round(seconds * SAMPLE_RATE) - self._done
        if size <= 0:
            return
        channels = len(av.AudioLayout(self._layout).channels)
        times = (np.arange(size) + self._done) / SAMPLE_RATE
        wave = np.repeat((0.2 * np.sin(2 * np.pi * 440 * times)).astype(np.float32)[None], channels, axis=0)
        frame = av.AudioFrame.from_ndarray(wave, "fltp", self._layout)
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, self._done, Fraction(1, SAMPLE_RATE)
        self._done += size
        for part in self._resampled(frame):
            self._output.mux(self._stream.encode(part))

    def end(self) -> None:
        """Write what the encoder still holds."""
        for part in self._resampled(None):
            self._output.mux(self._stream.encode(part))
        self._output.mux(self._stream.encode(None))

    def _resampled(self, frame: Any) -> list[Any]:
        context = self._stream.codec_context
        if self._resampler is None:
            size = context.frame_size or 0
            self._resampler = av.AudioResampler(context.format.name, self._layout, SAMPLE_RATE, frame_size=size)
        return list(self._resampler.resample(frame))


def streams_of(path: Path, kind: str) -> list[tuple[str, int]]:
    """Codec and number of packets of each stream of a kind ("video", "audio")."""
    with av.open(str(path), metadata_errors="replace") as container:
        found = {s.index: 0 for s in container.streams if s.type == kind}
        names = {s.index: s.codec_context.name if s.codec_context else "" for s in container.streams}
        for packet in container.demux():
            if packet.size and packet.stream_index in found:
                found[packet.stream_index] += 1
    return [(names[index], count) for index, count in found.items()]


def heard_seconds(path: Path) -> list[float]:
    """How long each audio stream is once it is decoded; what can't be decoded does not count."""
    with av.open(str(path), metadata_errors="replace") as container:
        seconds = {s.index: 0.0 for s in container.streams.audio}
        for packet in container.demux(container.streams.audio) if seconds else ():
            with suppress(av.FFmpegError):
                seconds[packet.stream.index] += sum(f.samples / f.sample_rate for f in packet.decode())
    return list(seconds.values())


def payload(path: Path) -> list[int]:
    """Bytes of sound in each audio stream; of AAC without the headers that transport streams put before each packet."""
    with av.open(str(path), metadata_errors="replace") as container:
        sizes = {s.index: 0 for s in container.streams.audio}
        bare = {
            s.index: 7 * (s.codec_context.name == "aac" and not s.codec_context.extradata)
            for s in container.streams.audio
        }
        for packet in container.demux(container.streams.audio) if sizes else ():
            if packet.size:
                sizes[packet.stream_index] += packet.size - bare[packet.stream_index]
    return list(sizes.values())
