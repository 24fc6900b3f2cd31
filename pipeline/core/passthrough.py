"""What of an input an output video carries over unchanged: audio packets, tags and chapters."""

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
from av.stream import Discard, Disposition

Packet = Any  # PyAV's, whose class is generic in its stubs but not at run time
# Tags that describe the input file itself, not its content.
_TECHNICAL = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "software")
_KINDS = {"subtitle": "subtitle track", "data": "data track", "attachment": "attachment"}


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """An audio stream of an input. `template` holds its parameters and stays valid after the input is closed.

    disposition: libav's flags, such as that of the default track.
    """

    index: int
    template: Any
    codec: str
    sample_rate: int
    tags: dict[str, str] = field(default_factory=dict)
    disposition: int = 0


class PacketQueue:
    """The audio packets of an input for one output, in the order of the file. Filled by the source's thread."""

    def __init__(self, owner: Passthrough) -> None:
        self._owner = owner
        self.packets: deque[Packet] = deque()

    @property
    def complete(self) -> bool:
        """Whether no further packet will come."""
        return self._owner.frames is not None

    @property
    def frames(self) -> int | None:
        """How many frames the source has given, once it has ended; None before."""
        return self._owner.frames

    def close(self) -> None:
        """Take no further packets."""
        self._owner.unsubscribe(self)
        self.packets.clear()


@dataclass(slots=True)
class Passthrough:
    """Audio, tags and chapters of an input that is read once, by its source.

    `notes` are for the outputs: what of the input they can't get. `frames` is set by the source at its end. A sink subscribes
    before the first frame is read; packets without a subscriber are dropped from then on. Chapters are those of PyAV's
    `Container.chapters`, their times those of the frames.
    """

    tracks: tuple[AudioTrack, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    chapters: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    frames: int | None = None
    _early: list[Packet] = field(default_factory=list)
    _queues: list[PacketQueue] = field(default_factory=list)
    _begun: bool = False

    def subscribe(self) -> PacketQueue:
        """A queue that gets every audio packet from now on, and those that were read on opening the source."""
        queue = PacketQueue(self)
        queue.packets.extend(map(copy_packet, self._early))
        self._queues.append(queue)
        return queue

    def unsubscribe(self, queue: PacketQueue) -> None:
        """Give a queue no further packets."""
        if queue in self._queues:
            self._queues.remove(queue)

    def add(self, packet: Packet) -> None:
        """Hand an audio packet to every queue."""
        if not self._begun:
            self._early.append(packet)
        for number, queue in enumerate(self._queues):
            queue.packets.append(packet if self._begun and number == 0 else copy_packet(packet))

    def move_chapters(self, seconds: Fraction) -> None:
        """Move the chapters with the frames. Those that would begin before zero do so at zero."""
        if seconds:
            self.chapters = tuple(_moved(chapter, seconds) for chapter in self.chapters)

    def begin(self) -> None:
        """Keep no more packets for later subscribers: frames are being read."""
        self._begun = True
        self._early.clear()


def without_audio(passthrough: Passthrough | None, reason: str) -> Passthrough | None:
    """The tags alone, for an output whose times are not those of the input; a note gives the reason."""
    if passthrough is None:
        return None
    what = [*(["the audio"] if passthrough.tracks else []), *(["the chapters"] if passthrough.chapters else [])]
    notes = [f"{' and '.join(what)} can't be carried over: {reason}"] if what else []
    return Passthrough(tags=passthrough.tags, notes=(*passthrough.notes, *notes))


def cut_chapters(chapters: tuple[Any, ...], end: Fraction) -> tuple[Any, ...]:
    """Leave out what of the chapters lies after `end` seconds, so that an output lasts no longer than its frames."""
    return tuple(_cut(c, end) for c in chapters if c["start"] * Fraction(c["time_base"]) < end)


def passthrough_of(container: Any, *, live: bool) -> Passthrough:
    """What an open input has beside its image. A live source's audio is not carried over. Never raises for bad tags."""
    notes = [f"left out of the output: {rest}"] if (rest := _others(container)) else []
    tracks = []
    for stream in container.streams.audio:
        if stream.discard == Discard.all:  # of another programme or variant than the image
            continue
        try:
            tracks.append(_track(stream))
        except (ValueError, AttributeError, av.FFmpegError):
            notes.append("audio of a codec that is unknown here can't be copied and is left out")
    whole = Passthrough(tuple(tracks), clean_tags(container.metadata), tuple(_chapters(container)), tuple(notes))
    if not live:
        return whole
    return without_audio(whole, "the source is live") or whole


def copy_packet(packet: Packet) -> Packet:
    """A packet with the same data, times and side data, which no one else holds. It belongs to no stream."""
    copy: Packet = av.Packet(packet.size)
    copy.update(bytes(packet))
    copy.pts, copy.dts, copy.duration, copy.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    copy.is_keyframe, copy.is_corrupt = packet.is_keyframe, packet.is_corrupt
    for data in packet.iter_sidedata():
        copy.set_sidedata(data, move=True)
    copy.stream = packet.stream
    return copy


def clean_tags(metadata: dict[str, str]) -> dict[str, str]:
    """The tags of the content. Bytes that are not UTF-8 (read with "surrogateescape") are taken for Windows-1252."""
    readable = {_readable(key): _readable(value) for key, value in metadata.items()}
    return {key: value for key, value in readable.items() if key.lower() not in _TECHNICAL}


def _readable(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _track(stream: Any) -> AudioTrack:
    # A muxer that takes every codec and is never started: it owns a copy of the stream's parameters.
    holder = av.open(io.BytesIO(), "w", format="null")
    template = holder.add_stream_from_template(stream)
    context = template.codec_context
    tags, disposition = clean_tags(stream.metadata), int(stream.disposition)
    return AudioTrack(stream.index, template, context.name, context.sample_rate or 0, tags, disposition)


def _moved(chapter: dict[str, Any], seconds: Fraction) -> dict[str, Any]:
    ticks = round(seconds / Fraction(chapter["time_base"]))
    return chapter | {"start": max(chapter["start"] + ticks, 0), "end": max(chapter["end"] + ticks, 0)}


def _cut(chapter: dict[str, Any], end: Fraction) -> dict[str, Any]:
    return chapter | {"end": min(chapter["end"], round(end / Fraction(chapter["time_base"])))}


def _chapters(container: Any) -> Iterator[dict[str, Any]]:
    """Chapters in order, each with an end that is not before its start."""
    for chapter in sorted(container.chapters(), key=lambda c: Fraction(c["start"] * c["time_base"])):
        if chapter["time_base"] > 0:
            yield chapter | {
                "end": max(chapter["start"], chapter["end"]),
                "metadata": clean_tags(chapter["metadata"]),
            }


def _others(container: Any) -> str:
    """The streams that are neither video nor audio, and covers, in words: "2 subtitle tracks, 1 timecode track"."""
    found: Counter[str] = Counter()
    for stream in container.streams:
        if stream.disposition & Disposition.attached_pic:
            found["cover image"] += 1
        elif stream.type in _KINDS and stream.discard != Discard.all:  # those are the chapters' titles
            found["timecode track" if "timecode" in stream.metadata else _KINDS[stream.type]] += 1
    return ", ".join(f"{count} {kind}{'s' if count > 1 else ''}" for kind, count in found.items())
