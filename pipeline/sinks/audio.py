"""The sound of the source, copied packet by packet beside the new picture."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from math import lcm
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer
from av.packet import Packet

# Sound may lie this many seconds of pictures behind its time in the file.
_SKEW = 1
_ATTACHED_PICTURE = 0x400  # libavformat's AV_DISPOSITION_ATTACHED_PIC: a cover, no video


class AudioCopy:
    """The audio streams of a file, given packet by packet, as far as a container of format `container` can hold them.

    `notes` says what could not be copied; the video goes on without.
    """

    def __init__(self, path: str, container: str) -> None:
        """Open the file and look at its streams."""
        self.notes: list[str] = []
        self._shift = Fraction(0)
        self._container = container
        self._targets: dict[int, Any] = {}
        self._filters: dict[int, BitStreamFilterContext] = {}
        self._waiting: deque[Packet[Any]] = deque()
        self._packets: Iterator[Packet[Any]] = iter(())
        self._picture_end = Fraction(-1)  # where the last picture packet seen begins, in seconds
        try:
            self._input: InputContainer | None = av.open(path)
        except (OSError, av.FFmpegError) as error:
            self._input = None
            self._stop(str(error))
        self._streams = [s for s in self._input.streams.audio if self._fits(s, container)] if self._input else []

    def _fits(self, stream: Any, container: str) -> bool:
        if _holds(container, stream):
            return True
        codec = getattr(stream.codec_context, "name", "of an unknown codec")
        remedy = "name the output .mkv to keep it" if _holds("matroska", stream) else "convert it beforehand to keep it"
        self.notes.append(f"audio {codec} can't be kept in {container} and is left out: {remedy}")
        return False

    @property
    def clock(self) -> int:
        """A rate in Hz of which every stream's sampling rate is a divisor; 1 without audio."""
        return lcm(*(stream.codec_context.sample_rate or 1 for stream in self._streams))

    def attach(self, output: OutputContainer, shift: Fraction) -> None:
        """Add the streams to `output`, before anything is written to it; their times are to be moved by `shift` seconds."""
        self._shift = shift
        for stream in self._streams:
            target = output.add_stream_from_template(stream)
            target.metadata.update(stream.metadata)
            self._targets[stream.index] = target
            if _has_adts_headers(stream) and self._container != "matroska":
                self._filters[stream.index] = BitStreamFilterContext("aac_adtstoasc", stream)
        if self._input and self._streams:
            pictures = [s for s in self._input.streams.video if not int(s.disposition) & _ATTACHED_PICTURE]
            self._packets = self._input.demux([*pictures[:1], *self._streams])

    def until(self, seconds: Fraction) -> Iterator[Packet[Any]]:
        """Packets, ready to be muxed, that begin before a time of the source and were not given yet."""
        while self._waiting or (self._picture_end <= seconds + _SKEW and self._read()):
            if self._waiting and _start(self._waiting[0]) >= seconds:
                return
            if self._waiting:
                yield from self._ready(self._waiting.popleft())

    def rest(self, video_end: Fraction) -> Iterator[Packet[Any]]:
        """What is left when the picture ends at a time of the source.

        That is everything, if the source's picture ends there too; else the run was cut short, and the sound ends with it.
        """
        while self._picture_end <= video_end + _SKEW and self._read():
            pass
        yield from self.until(video_end)
        if self._picture_end <= video_end:
            yield from chain.from_iterable(map(self._ready, self._waiting))
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._waiting.clear()
        self._packets = iter(())
        if self._input is not None:
            self._input.close()

    def fail(self, error: Exception) -> None:
        """Go on without sound after an error in a packet that was given."""
        self._stop(str(error))

    def _read(self) -> bool:
        """Take one packet from the file; False at its end."""
        try:
            packet = next(self._packets, None)
        except av.FFmpegError as error:
            self._stop(str(error))
            return False
        if packet is None:
            return False
        if packet.pts is None and packet.dts is None:
            return True
        if packet.stream_index in self._targets:
            self._waiting.append(packet)
        else:
            self._picture_end = max(self._picture_end, _start(packet))
        return True

    def _ready(self, packet: Packet[Any]) -> Iterator[Packet[Any]]:
        index, ticks = packet.stream_index, round(self._shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        for ready in self._filters[index].filter(packet) if index in self._filters else (packet,):
            ready.stream = self._targets[index]
            yield ready

    def _stop(self, reason: str) -> None:
        self.notes.append(f"the audio was not copied to its end ({reason}): the video goes on without it")
        self.close()


def _holds(container: str, stream: Any) -> bool:
    """Whether a container takes a stream: only writing a header tells."""
    try:
        with av.open(io.BytesIO(), "w", format=container) as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (ValueError, av.FFmpegError):
        return False
    return True


def _has_adts_headers(stream: Any) -> bool:
    """Whether each packet carries what MP4 keeps once, in the header. libav moves it there itself, but not into fragments."""
    return stream.codec_context.name == "aac" and not stream.codec_context.extradata


def _start(packet: Packet[Any]) -> Fraction:
    ticks = packet.pts if packet.pts is not None else packet.dts or 0
    return ticks * packet.time_base
