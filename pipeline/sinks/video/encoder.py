"""Encoding of frames to H.264 packets, with color, aspect, rotation and field order."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from cliprl.engines import CliprlError
from cliprl.pipeline.core.color import FULL_RANGE_TAG
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.nv12 import recolor
from cliprl.pipeline.core.thread_policy import codec_threads
from cliprl.pipeline.sinks.video.letterbox import letterbox
from cliprl.pipeline.sinks.video.libav_options import quality_options

# The slower ones can't keep up with video on few cores.
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
# Assumed where a stream's rate is unknown or absurd: x264 needs one to choose a level.
DEFAULT_RATE, HIGHEST_RATE = Fraction(25), 1000
# x264's limit.
_LONGEST_SIDE = 16384
# Attributes of a context that a further encoder of the same stream takes over.
COPIED_SETTINGS = (
    *("width", "height", "pix_fmt", "time_base", "framerate", "sample_aspect_ratio", "options"),
    *("colorspace", "color_primaries", "color_trc", "color_range"),
)


class VideoEncoder:
    """libx264 for one stream of frames, set up by the first: size, time base, color tags, aspect, rotation and fields.

    Times are those of the frames, moved by `shift` seconds. There are no B-frames: they would keep a frame for three others,
    and MP4 could not store every frame's duration. `end` is where the last frame ends, in seconds of the source; `reached` is the
    time of the source up to which packets have come out.
    """

    def __init__(self, stream: Any, first: Frame, info: StreamInfo, *, crf: float, preset: str, threads: int) -> None:
        self.notes: dict[str, str] = {}
        self.end, self.reached = Fraction(0), first.pts * first.time_base
        self.shift = _shift(first, info)
        self._stream, self._time_base = stream, first.time_base
        self._last: int | None = None
        self._step = max(round(1 / (encoded_rate(info) * first.time_base)), 1)
        self._size, self._color, self._aspect = (first.height, first.width), first.color, first.sample_aspect
        # H.264 can crop 4:2:0 by even numbers only; 4:4:4 with every chroma sample four times keeps an odd size.
        self._odd = first.height % 2 == 1 or first.width % 2 == 1
        if self._odd:
            self.notes["odd"] = f"{first.width}x{first.height} is odd, which 4:2:0 can't be: encoded as 4:4:4"
        self._picture = av.VideoFrame(first.width, first.height, "yuv444p" if self._odd else "nv12")
        self._picture.time_base = first.time_base
        self._configure(first, info, crf, preset, threads)

    def _configure(self, first: Frame, info: StreamInfo, crf: float, preset: str, threads: int) -> None:
        if max(first.width, first.height) > _LONGEST_SIDE:
            raise CliprlError(
                f"frames of {first.width}x{first.height} can't be encoded: H.264 takes sides of up to {_LONGEST_SIDE} pixels; "
                "make the input smaller, or write masks or labels only"
            )
        context = self._stream.codec_context
        context.width, context.height, context.pix_fmt = first.width, first.height, self._picture.format.name
        context.time_base, context.framerate = first.time_base, encoded_rate(info)
        context.thread_count = threads or codec_threads()
        if first.sample_aspect:
            context.sample_aspect_ratio = first.sample_aspect
        color = first.color
        context.colorspace, context.color_primaries = color.space_tag, color.primaries_tag
        context.color_trc = color.transfer_tag
        # A JPEG's full range goes without saying, an H.264 stream's does not.
        context.color_range = color.range_tag or (FULL_RANGE_TAG if color.full_range else 0)
        context.options = self._options(first, info, crf, preset)
        if first.rotation:
            self._stream.set_display_rotation(first.rotation)

    def _options(self, first: Frame, info: StreamInfo, crf: float, preset: str) -> dict[str, str]:
        # frame_duration: the durations given with the frames are true, above all that of the last.
        return quality_options(crf, preset) | {"bf": "0", "flags": "+frame_duration"} | self._fields(first, info)

    def _fields(self, first: Frame, info: StreamInfo) -> dict[str, str]:
        """Options that mark the stream as interlaced, where it is. x264 takes fields of 4:2:0 in groups of four lines."""
        if not (first.interlaced or info.interlaced):
            return {}
        if self._odd or first.height % 4:
            self.notes["fields"] = (
                f"interlaced video of {first.height} lines can't be marked as such: lines must be a multiple of 4"
            )
            return {}
        return {"x264-params": "bff=1" if info.bottom_field_first else "tff=1"}

    def encode(self, frame: Frame) -> list[Packet[Any]]:
        """Packets that are ready once `frame` has come; its planes are free again."""
        own = (frame.color, (frame.height, frame.width), frame.sample_aspect) == (self._color, self._size, self._aspect)
        image = (frame.shared_image if own else None) or self._image_of(frame)
        image.time_base = self._time_base
        image.pts, image.duration = self._times(frame)
        self.reached = frame.pts * frame.time_base
        return list(self._stream.encode(image))

    def remaining(self) -> Iterator[list[Packet[Any]]]:
        """After the last frame: the packets that come out one after the other, before those of `flush`."""
        yield from ()

    def close(self) -> None:
        """End what works in the background."""

    def _image_of(self, frame: Frame) -> av.VideoFrame:
        """The frame as libav has it, of the video's size."""
        luma, chroma = frame.luma, frame.chroma
        if frame.color != self._color:  # a source that was opened again may have another
            luma, chroma = luma.copy(), chroma.copy()
            recolor(luma, chroma, frame.color, self._color)
        stretch = float((frame.sample_aspect or 1) / (self._aspect or 1))
        if luma.shape != self._size or stretch != 1:
            self._note_size(frame)
            luma, chroma = letterbox(luma, chroma, *self._size, self._color, stretch)
        # The encoder copies what it keeps; this would allocate afresh should it ever hold on to the frame.
        self._picture.make_writable()
        self._fill(luma, chroma)
        return self._picture

    def _note_size(self, frame: Frame) -> None:
        height, width = self._size
        self.notes.setdefault("size", f"the frame becomes {frame.width}x{frame.height}: fitted into {width}x{height}")

    def repeat_headers(self) -> None:
        """Put the stream's parameters before every key frame, whatever the container. Before the first frame only."""
        context = self._stream.codec_context
        context.flags &= ~av.codec.context.Flags.global_header

    def flush(self) -> list[Packet[Any]]:
        """The packets still to come after the last frame."""
        return list(self._stream.encode(None))

    def _fill(self, luma: Plane, chroma: Plane) -> None:
        height, width = self._size
        planes = [_rows(plane) for plane in self._picture.planes]
        planes[0][:height, :width] = luma
        if self._odd:
            for plane, component in zip(planes[1:], np.moveaxis(chroma, -1, 0), strict=True):
                plane[:height, :width] = component.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        else:
            pairs = planes[1].reshape(len(planes[1]), -1, 2)
            pairs[: height // 2, : width // 2] = chroma

    def _times(self, frame: Frame) -> tuple[int, int]:
        """Time and duration in the stream's ticks; a time that does not come after the last is moved behind it."""
        ratio = frame.time_base / self._time_base
        pts, duration = (
            (frame.pts, frame.duration) if ratio == 1 else (round(frame.pts * ratio), round(frame.duration * ratio))
        )
        if self._last is not None:
            if pts <= self._last:
                note = f"frame {frame.index} has the time {pts} after a frame with {self._last}: moved behind it"
                self.notes.setdefault("order", note)
                pts = self._last + 1
            self._step = pts - self._last
        self._last = pts
        duration = duration or self._step
        self.end = (pts + duration) * self._time_base
        return pts + round(self.shift / self._time_base), duration


def _rows(plane: Any) -> NDArray[np.uint8]:
    """A plane of a libav frame as bytes (lines, bytes a line), padding included."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


def _shift(first: Frame, info: StreamInfo) -> Fraction:
    """The times of a file are kept, but can't be negative; a live stream's clock starts with its first frame."""
    start = first.pts * first.time_base
    return -start if info.live or start < 0 else Fraction(0)


def encoded_rate(info: StreamInfo) -> Fraction:
    """Return the frame rate for x264, which the times of the frames do not have to keep."""
    return info.rate if info.rate and 0 < info.rate <= HIGHEST_RATE else DEFAULT_RATE
