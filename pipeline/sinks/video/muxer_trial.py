"""The audio, tags and chapters that a container accepts, found by writing a few packets into memory with the real options.

A table of codecs is not enough: the answer depends on the muxer's options, on a stream's parameters and on its first packets.
libav crashes if it is asked to write a header again after it refused one, so a refused trial is dropped and never written again.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
from av.bitstream import BitStreamFilterContext

from cliprl.pipeline.core.passthrough import AudioTrack, Packet, copy_packet

_ERRORS = (OSError, ValueError, av.FFmpegError)
# Packets of each track that a trial writes: some codecs' headers are made from the first ones.
TRIAL_PACKETS = 8
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_TIMECODE = "timecode"
# Frames a second of a trial, where those of the file are unknown.
TRIAL_RATE = Fraction(25)
# Microseconds after which a delayed header is written, and by when a track must have begun whose packets make the header.
_FIRST_FRAGMENT = "3000000"
MAX_START = 2


@dataclass(frozen=True, slots=True)
class TrackSample:
    """An audio track and the first of its packets."""

    track: AudioTrack
    packets: tuple[Packet, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Audio, tags and chapters to be written, with the options of the muxer; `notes` name what is left out, and why.

    rate: frames a second, by which MP4 counts a timecode.
    """

    options: dict[str, str]
    samples: tuple[TrackSample, ...] = ()
    tags: Mapping[str, str] | None = None
    chapters: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    rate: Fraction = TRIAL_RATE

    def note(self, text: str) -> Plan:
        """This plan with a further note."""
        return replace(self, notes=(*self.notes, text))


def plan_streams(container: str, wanted: Plan) -> Plan:
    """As much of `wanted` as a file of this format (libav's name) can hold."""
    plan = wanted
    if _written(container, plan) is None:
        plan = _with_audio(container, wanted)
    if _written(container, plan) is None:
        untimed = {key: value for key, value in (plan.tags or {}).items() if key.lower() != _TIMECODE}
        lesser = (
            (replace(plan, tags=untimed), "the timecode"),
            (replace(plan, chapters=()), "the chapters"),
            (replace(plan, tags={}), "the tags"),
            (replace(plan, tags={}, chapters=()), "the tags and chapters"),
        )
        plan, what = next((one for one in lesser if _written(container, one[0]) is not None), lesser[-1])
        plan = plan.note(f"{what} can't be kept in {container}: left out")
    if plan.samples and _written(container, plan) is None:
        plan = replace(plan, samples=()).note(f"the audio can't be kept in {container} and is left out")
    return _read_back(container, plan)


def delayed(options: Mapping[str, str]) -> dict[str, str]:
    """Muxer options under which the header is written after the first fragment: MP4's for AC-3 is made from its packets."""
    if "movflags" not in options:
        return dict(options)
    flags = options["movflags"].replace("empty_moov", "delay_moov")
    return {**options, "movflags": flags, "frag_duration": _FIRST_FRAGMENT}


def add_track(output: Any, track: AudioTrack) -> Any:
    """Add a stream for a track to an output whose header is not written yet. Returns the stream.

    AVI and Matroska give the number of PCM channels but not their layout, which MP4 needs: the usual layout is assumed.
    """
    target = output.add_stream_from_template(track.template)
    target.metadata.update(track.tags)
    target.disposition = track.disposition
    layout = target.codec_context.layout
    if layout.name.endswith(" channels") and layout.nb_channels in _USUAL_LAYOUTS:
        target.codec_context.layout = _USUAL_LAYOUTS[layout.nb_channels]
    return target


def filter_for(container: str, track: AudioTrack) -> BitStreamFilterContext | None:
    """The filter that a track's packets need in a container: MP4 keeps ADTS headers once, in its own header.

    libav does that by itself, but not in fragments.
    """
    if container != "matroska" and track.codec == "aac" and not track.template.codec_context.extradata:
        return BitStreamFilterContext("aac_adtstoasc", track.template)
    return None


def _with_audio(container: str, wanted: Plan) -> Plan:
    """The tracks that the container takes, each tried alone: with the options as they are, else with a delayed header."""
    plan = replace(wanted, samples=())
    for sample in wanted.samples:
        alone = Plan(plan.options, (sample,))
        later = replace(alone, options=delayed(plan.options))
        fitting = next((p for p in (alone, later) if _written(container, p) is not None), None)
        if fitting is None:
            plan = plan.note(_refusal(container, sample))
        else:
            plan = replace(plan, options=fitting.options, samples=(*plan.samples, sample))
    return plan


def _refusal(container: str, sample: TrackSample) -> str:
    fits = container != "matroska" and _written("matroska", Plan({}, (sample,))) is not None
    remedy = "name the output .mkv to keep it" if fits else "convert it beforehand to keep it"
    return f"audio {sample.track.codec} can't be kept in {container} and is left out: {remedy}"


def _written(container: str, plan: Plan) -> bytes | None:
    """Return a file with one frame and the planned audio, tags and chapters. None if libav refuses it."""
    memory = io.BytesIO()
    try:
        _write(memory, container, plan)
    except _ERRORS:
        return None
    return memory.getvalue()


def _write(memory: io.BytesIO, container: str, plan: Plan) -> None:
    output = av.open(memory, "w", format=container, container_options=dict(plan.options))
    video: Any = output.add_stream("mpeg4", rate=25, width=16, height=16)
    video.codec_context.framerate, video.codec_context.time_base = plan.rate, 1 / TRIAL_RATE
    targets = [add_track(output, sample.track) for sample in plan.samples]
    output.metadata.update(plan.tags or {})
    output.set_chapters(list(plan.chapters))
    output.start_encoding()
    for target, sample in zip(targets, plan.samples, strict=True):
        for packet in _prepared(container, sample):
            packet.stream = target
            output.mux(packet)
    image = av.VideoFrame(16, 16, "yuv420p")
    image.pts = 0
    output.mux([*video.encode(image), *video.encode(None)])
    output.close()


def _prepared(container: str, sample: TrackSample) -> Iterable[Packet]:
    """Copies of a track's first packets, moved to the time 0."""
    filter = filter_for(container, sample.track)
    times = [time for packet in sample.packets for time in (packet.dts, packet.pts) if time is not None]
    start = min(times, default=0)
    for packet in map(copy_packet, sample.packets):
        packet.pts = None if packet.pts is None else packet.pts - start
        packet.dts = None if packet.dts is None else packet.dts - start
        yield from filter.filter(packet) if filter else (packet,)


def _read_back(container: str, plan: Plan) -> Plan:
    """The plan, with notes about tags and chapters that a reader will not find in the file."""
    data = _written(container, plan) if plan.tags or plan.chapters else None
    if data is None:
        return plan
    try:
        with av.open(io.BytesIO(data), metadata_errors="replace") as written:
            found = {key.lower() for key in written.metadata}
            found |= {
                _TIMECODE for stream in written.streams if _TIMECODE in stream.metadata
            }  # MP4 makes a track of it
            chapters = len(written.chapters())
    except _ERRORS:
        return plan
    lost = [key for key in plan.tags or {} if key.lower() not in found]
    if lost:
        plan = plan.note(f"tags that {container} has no place for are left out: {_listed(lost)}")
    if chapters < len(plan.chapters):
        plan = plan.note(f"{len(plan.chapters) - chapters} of {len(plan.chapters)} chapters are left out")
    return plan


def _listed(names: Sequence[str], most: int = 8) -> str:
    shown = [" ".join(name.split())[:40] for name in names[:most]]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "")
