"""The output file of a video: its frames, and the audio, tags and chapters of the source."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from cliprl.pipeline.core.passthrough import Packet, Passthrough, cut_chapters
from cliprl.pipeline.sinks.atomic_file import PartialFile
from cliprl.pipeline.sinks.video.audio import AudioCopy
from cliprl.pipeline.sinks.video.libav_options import muxer_options
from cliprl.pipeline.sinks.video.mp4_chapters import remove_chapter_track
from cliprl.pipeline.sinks.video.muxer_trial import TRIAL_RATE, Plan, plan_streams

# Bytes that libav collects before it calls `write`.
_BUFFER = 1 << 18


class Muxer:
    """Writes packets of one video stream into `file`, in libav's `container`, and what of `passthrough` the container holds.

    Trouble with audio, tags or chapters becomes one of `notes`. The header is written once it is known what the file holds, a
    second of frames after the first at the latest; until then packets wait. `open` comes first, then `mux`, at last `finish`
    or `abandon`.
    """

    def __init__(self, file: PartialFile, container: str, passthrough: Passthrough | None) -> None:
        self._file, self._format = file, container
        self._passthrough = passthrough or Passthrough()
        self._audio, self._has_audio = AudioCopy(self._passthrough, container), False
        self._notes: list[str] = []
        self._container: Any = None
        self._options: dict[str, str] = {}
        self._shift = Fraction(0)
        self._chapters: tuple[Any, ...] = ()
        # Matroska takes them at the end, when it is known how long the video is; in MP4 they are a track.
        self._late_chapters = container == "matroska"
        self._held: list[Packet] = []
        self._begun = False

    @property
    def notes(self) -> list[str]:
        """What could not be carried over, once the file is finished or abandoned."""
        return [*self._notes, *self._audio.notes]

    def open(self, codec: str, time_base: Fraction) -> Any:
        """Open the container. Returns the stream for the encoder, of a codec of libav, whose frames have this time base."""
        self._options = muxer_options(self._format, time_base, self._audio.clock, seekable=self._file.seekable())
        self._container = av.open(
            self._file, "w", format=self._format, container_options=dict(self._options), buffer_size=_BUFFER
        )
        return self._container.add_stream(codec)

    def mux(self, packets: Iterable[Packet], seconds: Fraction, shift: Fraction) -> None:
        """Write packets of the video up to a time of the source, and the audio before them, moved by `shift` seconds."""
        self._held += packets
        self._shift = shift
        ready = self._begun or self._audio.is_ready(seconds)
        if ready and self._held:
            self._write()

    def finish(self, packets: Iterable[Packet], end: Fraction, frames: int) -> None:
        """Write the last packets; the video ends after `frames` frames, at a time of the source. Close the container."""
        self._held += packets
        self._write()
        for packet in self._audio.rest(end, frames):
            self._put(packet)
        whole = self._passthrough.frames == frames
        chapters = self._chapters if whole else cut_chapters(self._chapters, end + self._shift)
        if chapters != self._chapters or self._late_chapters:
            self._container.set_chapters(list(chapters))
        self._container.close()
        if chapters != self._chapters and not self._late_chapters and self._file.partial:
            remove_chapter_track(self._file.partial)

    def abandon(self) -> None:
        """Take no more packets, and release the container."""
        self._audio.close()
        if self._container is not None:
            with suppress(OSError, ValueError, av.FFmpegError):
                self._container.close()

    def _write(self) -> None:
        if not self._begun:
            self._begun = True
            self._begin()
        held, self._held = self._held, []
        for packet in held:  # of many at once, libav would write a second of audio before the first
            self._put_audio((packet.pts or 0) * packet.time_base - self._shift)
            self._put(packet)

    def _put_audio(self, until: Fraction) -> None:
        for packet in self._audio.until(until) if self._has_audio else ():
            self._put(packet)

    def _begin(self) -> None:
        """Decide what the file holds, and write the header."""
        source = self._passthrough
        chapters = tuple(_moved(chapter, self._shift) for chapter in source.chapters)
        plan = plan_streams(
            self._format, Plan(self._options, self._audio.samples(), source.tags, chapters, source.notes, self._rate())
        )
        self._notes += plan.notes
        self._container.container_options.update(plan.options)
        self._container.metadata.update(plan.tags or {})
        self._chapters = plan.chapters
        if not self._late_chapters:
            self._container.set_chapters(list(plan.chapters))
        self._has_audio = bool(plan.samples)
        self._audio.attach(self._container, [sample.track for sample in plan.samples], self._shift)
        self._container.start_encoding()

    def _rate(self) -> Fraction:
        return Fraction(self._container.streams.video[0].codec_context.framerate or TRIAL_RATE)

    def _put(self, packet: Packet) -> None:
        """Write a packet. libav holds packets back to put them in order, so that audio's errors come with any packet."""
        try:
            self._container.mux(packet)
        except (ValueError, av.FFmpegError) as error:
            if self._file.error or not self._audio.refuse(error):
                raise


def _moved(chapter: dict[str, Any], shift: Fraction) -> dict[str, Any]:
    """A chapter whose times are moved by `shift` seconds."""
    ticks = round(shift / chapter["time_base"])
    return chapter | {"start": chapter["start"] + ticks, "end": chapter["end"] + ticks}
