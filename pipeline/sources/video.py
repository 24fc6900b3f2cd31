"""Anything libav can open: files, devices, network streams."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.frame import Frame
from cliprl.pipeline.protocols import PlaneAllocator, StreamInfo
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.sources.decode import Decoded, Decoder
from cliprl.pipeline.sources.errors import explain, redact
from cliprl.pipeline.sources.planes import PlaneWriter, picture_color
from cliprl.pipeline.sources.timing import Clock

# A file whose pictures end this much before the end it states was cut off, or a part of it could not be read.
_EARLY_SECONDS = 1.0


def check_file(path: Path) -> None:
    """Raise the error that says why `path` can't be a video file, before libav sees it."""
    if not path.exists():
        raise UsageError(f"{path} does not exist: check the name")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a video file, or write {path}/*.png for the pictures in it")
    if path.is_file() and path.stat().st_size == 0:
        raise CliprlError(f"{path} is empty: make or copy it again")


class VideoSource(FrameSource):
    """Frames of a file, a device or a URL, each with its own time. The first is decoded on opening, so that `info` is true.

    Raises UsageError or CliprlError, one line, where there is no picture to be had.
    """

    def __init__(
        self,
        name: str,
        *,
        format: str | None = None,
        options: Mapping[str, str] | None = None,
        timeout: tuple[float, float] | None = None,
        live: bool | None = None,
    ) -> None:
        self._name = name
        self._local = "://" not in name and format is None
        try:
            self._container: Any = av.open(name, format=format, options=dict(options or {}), timeout=timeout)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise explain(error, name) from None
        try:
            self._start(live)
        except BaseException:
            self._container.close()
            raise

    def _start(self, live: bool | None) -> None:
        stream = _video_stream(self._container, redact(self._name))
        if live is None:  # over a network, what has an end is a file
            live = not self._local and stream.duration is None and self._container.duration is None
        self._decoder = Decoder(self._container, stream, live=live)
        self._context = stream.codec_context
        self._writer = PlaneWriter()
        self._index = 0
        self._held = self._decode()
        if self._held is None:
            raise CliprlError(
                f"no picture in {redact(self._name)} can be decoded: it is cut off or damaged; copy it again"
            )
        info = _describe(redact(self._name), self._container, stream, self._held.picture, self._context)
        if self._local and self._container.streams.audio:
            info = info | {"audio_path": self._name}
        super().__init__(StreamInfo(**info, live=live))
        self._declared = stream.frames or None
        self._clock = Clock(self.info.time_base, self.info.rate)
        self._first_seconds = self._end_seconds = 0.0
        if _mirrored(self._held.picture):
            self.note("the file asks for a mirrored display, which is not carried over")

    def _decode(self) -> Decoded | None:
        try:
            return self._decoder.read()
        except av.error.FFmpegError as error:
            raise explain(error, self._name) from None

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        decoded, self._held = self._held or self._decode(), None
        self.damaged = self._decoder.corrupt + self._decoder.lost
        if decoded is None:
            self._finish()
            return None
        frame = self._frame(decoded, allocate)
        for text in self._clock.notes.values():
            self.note(text)
        self._index += 1
        return frame

    def _frame(self, decoded: Decoded, allocate: PlaneAllocator) -> Frame:
        picture, info = decoded.picture, self.info
        pts, duration = self._clock.stamp(picture.pts, picture.duration or 0, self._index)
        if (picture.height, picture.width) != (info.height, info.width):
            self.note(f"the size changes at frame {self._index}, to {picture.width}x{picture.height}")
        color = picture_color(picture, self._context)
        luma, chroma = allocate(picture.height, picture.width)
        self._writer.write(picture, luma, chroma, color)
        frame = Frame(luma, chroma, pts, info.time_base, self._index, color, duration, info.rotation)
        frame.sample_aspect, frame.interlaced = info.sample_aspect, picture.interlaced_frame
        frame.damaged = decoded.damaged
        if self._index == 0:
            self._first_seconds = frame.seconds
        self._end_seconds = float((pts + duration) * info.time_base)
        frame.mark("captured")
        return frame

    def _finish(self) -> None:
        """At the end of the stream: say what of it is missing."""
        missing = (self._declared or 0) - self._decoder.packets
        if missing > 0:
            self.damaged += missing
            self.note(f"the file ends early: {self._index} of the {self._declared} frames it states")
        shown, stated = self._end_seconds - self._first_seconds, self.info.seconds
        if missing <= 0 and stated and stated - shown > _EARLY_SECONDS:
            self.note(f"the pictures end after {shown:.1f} s; the file states {stated:.1f} s")

    def close(self) -> None:
        """Release the decoder and the file."""
        if not self.closed:
            super().close()
            self._held = None
            self._container.close()


def _video_stream(container: InputContainer, name: str) -> Any:
    """The video stream to show: the first that is no cover picture. Its decoder is known to exist: without, libav crashes."""
    attached = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & attached]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise CliprlError(f"{name} has no video stream (it has {kinds}): name a file with pictures")
    for stream in streams:
        if stream.codec_context is not None and stream.codec_context.width > 0:
            return stream
    raise CliprlError(
        f"the video stream of {name} can't be decoded: it is cut off, or of a codec without a decoder here"
    )


def _describe(name: str, container: Any, stream: Any, picture: av.VideoFrame, context: Any) -> dict[str, Any]:
    """What `StreamInfo` says of a stream whose first picture is decoded."""
    seconds: float | None = None
    if stream.duration is not None:
        seconds = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        seconds = container.duration / av.time_base
    rate = stream.average_rate or stream.guessed_rate
    if picture.pts is None:  # a bare stream's average is libav's guess; the codec knows better
        rate = stream.guessed_rate or rate
    return {
        "name": name,
        "height": picture.height,
        "width": picture.width,
        "time_base": Fraction(stream.time_base),
        "rate": rate or None,
        "frames": stream.frames or None,
        "seconds": seconds,
        "color": picture_color(picture, context),
        "rotation": round(picture.rotation / 90) * 90 % 360,
        "sample_aspect": stream.sample_aspect_ratio or None,
        "interlaced": picture.interlaced_frame,
    }


def _mirrored(picture: av.VideoFrame) -> bool:
    """Whether the display matrix (nine 32-bit numbers, row by row) has a negative determinant."""
    side_data: Any = picture.side_data  # a mapping by its stubs, a sequence of buffers in fact
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])
            return bool(a * d - b * c < 0)
    return False
