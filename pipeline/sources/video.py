"""The source for everything that libav opens: files, devices, network streams."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo
from cliprl.pipeline.core.passthrough import passthrough_of
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.decoding import playlist
from cliprl.pipeline.sources.decoding.conform import Conformer, Writer
from cliprl.pipeline.sources.decoding.decode import Decoded, PacketDecoder, PresentationClock
from cliprl.pipeline.sources.decoding.demux import SharedDemuxer
from cliprl.pipeline.sources.decoding.packet_queue import PacketReader
from cliprl.pipeline.sources.decoding.seek import seek_to_key
from cliprl.pipeline.sources.decoding.stream_selection import select
from cliprl.pipeline.sources.decoding.timeline import timeline_of
from cliprl.pipeline.sources.decoding.undecodable import (
    EncryptedPacketError,
    encryption_error,
    find_encryption,
    no_frame_error,
)
from cliprl.pipeline.sources.errors import explain, redact
from cliprl.pipeline.sources.probe import check_file, end_note, has_end, probe_stream, stated_frames, write_state
from cliprl.pipeline.sources.registry import SourceOptions, register_source

# Frames that end this much before the end that the file states, in seconds, get a note; audio may be longer.
_EARLY, _EARLY_WITH_SOUND = 0.2, 1.0


class VideoSource(FrameSource):
    """Frames of a file, a device or a URL, each with its own time. The first is decoded on opening, so that `info` is true.

    `start`: seconds after the file's beginning; the first frame is the key frame before, which is `origin` seconds after it.
    A live frame's "captured" time is when it would have come without any backlog, before this process or in it.
    Raises UsageError or CliprlError, one line, if no frame can be read.
    """

    def __init__(
        self,
        name: str,
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        timeout: tuple[float, float] | None = None,
        live: bool | None = None,
        hwaccel: Any = None,
        decoder: Callable[[Any], Any] | None = None,
        stream: int | None = None,
        url: str | None = None,
        start: float = 0.0,
    ) -> None:
        """Open `name`, and the video stream of index `stream` in it; None: the one marked as default, or the largest.

        `url` is what libav opens, where that is not `name`; `decoder` makes what decodes a live stream, of libav's context.
        """
        self._name, self._wanted, self._live_decoder = name, stream, decoder
        self._local = "://" not in name and format is None
        self._reader: PacketReader | None = None
        self._found = write_state(name) if self._local else None
        self.origin = 0.0
        if ".m3u8" in name:
            playlist.check_playlist(name)
        try:
            self._container: Any = av.open(
                url or name,
                format=format,
                options=playlist.with_playlist_options(name, options or {}),
                timeout=timeout,
                metadata_errors="surrogateescape",
                hwaccel=hwaccel,
            )
        except (OSError, ValueError, av.error.FFmpegError) as error:
            if how := find_encryption(name):
                raise encryption_error(name, how) from None
            raise playlist.with_variants(explain(error, name), name) from None
        try:
            if start:
                self.origin = seek_to_key(self._container, redact(name), start, stream)
            self._start(live)
        except BaseException:
            self._release()
            raise

    def _start(self, live: bool | None) -> None:
        stream, chosen = select(self._container, redact(self._name), self._wanted)
        if live is None:  # over a network, what has an end is a file
            live = not self._local and not has_end(self._container, stream)
        self._passthrough = passthrough_of(self._container, live=live)
        self._timeline = timeline_of(self._container, stream, live=live)
        self.waits = live or not self._local or self._is_pipe()
        packets = SharedDemuxer(
            self._container,
            stream,
            self._passthrough,
            None if live else self._timeline,  # packets of a live stream keep their times until they arrive
            read_ahead=not live and not self._is_pipe(),
        )
        self._live_decoder = wrap = self._live_decoder if live else None
        self._packets = packets
        self._decoder = PacketDecoder(self._container, stream, packets, self._timeline, live=live, wrap=wrap)
        self._reader = self._decoder.reader
        self._index = 0
        self._held = self._decode()
        if self._held is None:
            raise no_frame_error(self._name, self._container, in_order=self._is_pipe() or not self._local)
        info, self.crop = probe_stream(self._name, self._container, stream, self._held.image, self._decoder.context)
        self._passthrough.move_chapters(-self._timeline.moved)
        super().__init__(StreamInfo(**info, live=live, passthrough=self._passthrough))
        self._declared = stated_frames(self._container, stream)[0]
        self._slack = _EARLY if len(self._container.streams) == 1 else _EARLY_WITH_SOUND
        self._clock = PresentationClock(self.info.time_base, self.info.rate)
        self._first_seconds = self._end_seconds = 0.0
        is_playlist = self._container.format.name.startswith("hls")
        # The duration of Matroska is the time when the last stream ends; that of an HLS playlist is the sum of its segments.
        self._counts_from_zero = stream.duration is None and not is_playlist
        if chosen:
            self.note(chosen)
        for remark in playlist.playlist_notes(self._name, self._container) if is_playlist else []:
            self.note(remark)
        persistent = self._decoder.context.name != "mjpeg"  # its frames are independent images
        self._conformer = Conformer(self.info, self._plane_writer(), persistent=persistent, crop=self.crop)
        self._aspects = _aspect(self._decoder.context), self.info.sample_aspect

    def _plane_writer(self) -> Writer | None:
        """Return the writer of frames into planes. None for frames in host memory."""
        return None

    def _is_pipe(self) -> bool:
        """Whether the data come from a pipe, at the pace of its writer."""
        return self._local and not os.path.isfile(self._name)

    def _decode(self) -> Decoded | None:
        try:
            return self._decoder.read()
        except EncryptedPacketError:
            raise encryption_error(self._name, "Common Encryption") from None
        except av.error.FFmpegError as error:
            # an input/output error is how libav reports that the other end hung up
            if error.errno == errno.EIO and not self._local and self._index:
                self.note("the connection was closed at the other end")
                return None
            raise explain(error, self._name) from None

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        if not self._index:
            self._passthrough.begin()
        decoded, self._held = self._held or self._decode(), None
        self.damaged = self._decoder.corrupt + self._decoder.lost
        if decoded is None:
            self._finish()
            return None
        frame = self._frame(decoded, allocate)
        notes = self._conformer.notes.values(), self._timeline.notes, self._clock.notes.values(), self._decoder.notes
        for text in chain.from_iterable(notes):
            self.note(text)
        self._index += 1
        return frame

    def _frame(self, decoded: Decoded, allocate: PlaneAllocator) -> Frame:
        image = decoded.image
        pts, duration = self._clock.stamp(decoded.pts, image.duration or 0, self._index)
        frame = self._conformer.frame(
            image, self._decoder.context, allocate, f"frame {self._index}", self._sample_aspect()
        )
        frame.pts, frame.duration, frame.index = pts, duration, self._index
        frame.interlaced = image.interlaced_frame
        frame.damaged = decoded.damaged
        if self._index == 0:
            self._first_seconds = frame.seconds
        self._end_seconds = float((pts + duration) * self.info.time_base)
        frame.mark("captured")
        if self._reader is not None:
            frame.times["captured"] = self._reader.due(image)
            self.skipped = self._reader.skipped
        return frame

    def _sample_aspect(self) -> Fraction | None:
        """Return the sample aspect of the latest frame: that of the container until the decoder's changes."""
        at_start, stated = self._aspects
        now = _aspect(self._decoder.context)
        return stated if now == at_start else now

    def _finish(self) -> None:
        """Add notes on missing frames at the end of the stream."""
        self._passthrough.frames = self._index
        if remark := end_note(self._name, self._found, self._container, self._packets.position):
            self.note(remark)
        if self._decoder.cut_off:
            self.note(
                f"the input ended early: an input/output error or a closed connection, after {self._index} frames"
            )
        missing = (self._declared or 0) - self._decoder.packets
        if missing > 0:
            self.damaged += missing
            self.note(f"the file ends early: {self._index} of the {self.info.frames} frames it states")
        shown, stated = self._end_seconds - self._first_seconds, self.info.seconds
        if self._counts_from_zero:
            shown = max(shown, self._end_seconds + float(self._timeline.moved))
        counts = missing <= 0 and not self._timeline.jumps
        if counts and playlist.ends_early(self._name, self._container, (stated or 0.0) - shown, self._slack):
            self.note(f"the frames end after {shown:.1f} s; the file states {stated:.1f} s")

    def close(self) -> None:
        """Release the decoder and the file."""
        if not self.closed:
            super().close()
            self._held = None
            self._release()

    def _release(self) -> None:
        if self._live_decoder is not None and hasattr(self, "_decoder"):
            self._decoder.close()
        if self._reader is not None:
            self._reader.close()  # it closes the container after the last read
        else:
            self._container.close()

    @property
    def stored(self) -> bool:
        """Whether a live stream comes in stored parts, as HLS does."""
        return self._reader is not None and self._reader.stored

    @property
    def waiting(self) -> int:
        """Packets of a live stream that have arrived and are not decoded yet."""
        return self._reader.waiting if self._reader else 0

    @property
    def is_undecodable(self) -> bool:
        """Whether packets of a live stream have come since its last frame, and gave none."""
        return self._reader is not None and not self._reader.gives_frames


def _aspect(context: Any) -> Fraction | None:
    """The sample aspect ratio that a decoder tells; None for square pixels."""
    aspect: Fraction | None = context.sample_aspect_ratio
    return aspect if aspect and aspect != 1 else None


@register_source(shown="FILE", help="a video", takes_stream=True)
def open_file(name: str, options: SourceOptions) -> VideoSource:
    """Open a video file. Raises UsageError if there is no such file, CliprlError if it is empty or not a video."""
    check_file(Path(name))
    # libav takes "a:b.mp4" for an address, and "-" for standard input.
    return VideoSource(os.path.abspath(name) if ":" in name or name == "-" else name, stream=options.stream)
