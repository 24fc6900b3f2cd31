"""The audio of the source, copied packet by packet into the output video."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import lcm
from typing import Any

import av
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer

from cliprl.engines import reason_of
from cliprl.pipeline.core.passthrough import AudioTrack, Packet, PacketQueue, Passthrough, copy_packet
from cliprl.pipeline.sinks.video.muxer_trial import MAX_START, TRIAL_PACKETS, TrackSample, add_track, filter_for

# Seconds of video for which the header waits for the first packet of each track.
_WAIT = 1
# Packets that a container may refuse before the rest of the audio is left out.
_MOST_REFUSED = 100


class AudioCopy:
    """The audio packets of a source, as far as a container of format `container` holds them.

    `notes` names the tracks that could not be copied; the video is written without them. Used on the sink's thread only.
    """

    def __init__(self, passthrough: Passthrough, container: str) -> None:
        """Subscribe to the packets of the source, before its first frame is read."""
        self._container = container
        self._tracks = {track.index: track for track in passthrough.tracks}
        self._queue: PacketQueue | None = passthrough.subscribe() if self._tracks else None
        self._targets: dict[int, Any] = {}
        self._filters: dict[int, BitStreamFilterContext | None] = {}
        self._shift = Fraction(0)
        self._start: Fraction | None = None
        self._refused, self._reason, self._failed = 0, "", False

    @property
    def clock(self) -> int:
        """A rate in Hz of which every track's sampling rate is a divisor; 1 without audio."""
        return lcm(*(track.sample_rate or 1 for track in self._tracks.values()))

    @property
    def notes(self) -> list[str]:
        """What could not be copied."""
        if self._failed:
            return [f"the audio was not copied to its end ({self._reason}): the video goes on without it"]
        return [f"{self._refused} audio packets could not be copied ({self._reason})"] if self._refused else []

    def is_ready(self, seconds: Fraction) -> bool:
        """Whether each track's first packet is known, or is not waited for any longer at a time of the source."""
        self._start = seconds if self._start is None else self._start
        if self._queue is None or self._queue.complete:
            return True
        seen = {packet.stream_index for packet in tuple(self._queue.packets)}
        return seen >= self._tracks.keys() or seconds - self._start > _WAIT

    def samples(self) -> tuple[TrackSample, ...]:
        """Each track with its first packets, as far as they are there and not late."""
        latest = (self._start or 0) + MAX_START
        packets = [p for p in tuple(self._queue.packets) if _is_timed(p) and _start(p) < latest] if self._queue else []
        firsts = {index: [p for p in packets if p.stream_index == index][:TRIAL_PACKETS] for index in self._tracks}
        return tuple(
            TrackSample(track, tuple(map(copy_packet, firsts[index]))) for index, track in self._tracks.items()
        )

    def attach(self, output: OutputContainer, tracks: list[AudioTrack], shift: Fraction) -> None:
        """Add `tracks` to `output`, before anything is written to it; their times are to be moved by `shift` seconds."""
        self._shift = shift
        for track in tracks:
            self._targets[track.index] = add_track(output, track)
            self._filters[track.index] = filter_for(self._container, track)
        if not tracks:
            self.close()

    def until(self, seconds: Fraction) -> Iterator[Packet]:
        """Packets, ready to be muxed, that begin before a time of the source and were not given yet."""
        while self._queue and self._queue.packets and _start(self._queue.packets[0]) < seconds:
            yield from self._ready(self._queue.packets.popleft())

    def rest(self, video_end: Fraction, frames: int) -> Iterator[Packet]:
        """Yield the remaining packets when the video ends after `frames` frames, at a time of the source.

        That is everything, if the source ends there too; else the run was cut short, and the audio ends with it.
        """
        whole = self._queue is not None and self._queue.frames == frames
        yield from self.until(video_end)
        while whole and self._queue and self._queue.packets:
            yield from self._ready(self._queue.packets.popleft())
        self.close()

    def refuse(self, error: Exception) -> bool:
        """Go on without a packet that could not be written; False if there was no audio that could be to blame."""
        if not self._targets or self._failed:
            return False
        self._refused, self._reason = self._refused + 1, " ".join(str(error).split()) or reason_of(error)
        if self._refused > _MOST_REFUSED:
            self._failed = True
            self.close()
        return True

    def close(self) -> None:
        """Take no more packets from the source."""
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def _ready(self, packet: Packet) -> Iterator[Packet]:
        index = packet.stream_index
        if index not in self._targets or not _is_timed(packet):
            return
        ticks = round(self._shift / packet.time_base)
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
        for ready in self._filtered(index, packet):
            ready.stream = self._targets[index]
            yield ready

    def _filtered(self, index: int, packet: Packet) -> list[Packet]:
        filter = self._filters[index]
        if filter is None:
            return [packet]
        try:
            return list(filter.filter(packet))
        except (ValueError, av.FFmpegError) as error:
            self.refuse(error)
            return []


def _is_timed(packet: Packet) -> bool:
    return packet.pts is not None or packet.dts is not None


def _start(packet: Packet) -> Fraction:
    ticks = packet.pts if packet.pts is not None else packet.dts or 0
    return Fraction(ticks * packet.time_base)
