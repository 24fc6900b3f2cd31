"""The work of the process that decodes live video with NVDEC: packets in, NV12 images in shared memory out."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from mmap import mmap
from typing import Any, NamedTuple

import av
from av.codec.hwaccel import HWAccel

from cliprl.engines import CliprlError
from cliprl.pipeline.core.child_process import planes_in
from cliprl.pipeline.cuda.codecs.codec_process import libav_errors
from cliprl.pipeline.cuda.codecs.nvenc import short_reason
from cliprl.pipeline.sources.decoding.nv12_writer import PlaneWriter, image_color

_COLOR = ("colorspace", "color_range", "color_primaries", "color_trc")


class DecoderSetup(NamedTuple):
    """What a decoder is opened with: the codec's name, its extradata and flags.

    A packet with a key frame, which it must decode, lies at the start of the shared memory: `key_size` bytes.
    """

    codec: str
    extradata: bytes
    flags: int
    key_size: int


class SentPacket(NamedTuple):
    """A packet on its way to the process, whose data lie at the start of the shared memory: `size` bytes."""

    size: int
    pts: int
    dts: int | None
    duration: int
    time_base: Fraction


class SentImage(NamedTuple):
    """An image without its planes, which lie in the shared memory; `color` holds the attributes of `_COLOR`."""

    pts: int | None
    duration: int
    key_frame: bool
    is_corrupt: bool
    height: int
    width: int
    color: tuple[int, ...]


def open_nvdec(codec: str) -> Any:
    """Create a context that decodes on the GPU and downloads its frames. Raises CliprlError if there is none for the codec."""
    context: Any = av.CodecContext.create(codec, "r", HWAccel("cuda", allow_software_fallback=False))
    if not context.is_hwaccel:
        raise CliprlError(f"no decoder of the GPU for {codec}")
    return context


class HostFrameDecoder:
    """Decodes packets into NV12 images in the shared memory; None flushes, and others may follow. A `Work`, in the process.

    The answer is None for a damaged packet.
    """

    def __init__(self, setup: DecoderSetup, memory: mmap, open_context: Callable[[str], Any] = open_nvdec) -> None:
        libav_errors()
        self._writer = PlaneWriter()
        try:
            self._context = open_context(setup.codec)
            if setup.extradata:
                self._context.extradata = setup.extradata
            self._context.flags |= setup.flags
            self._context.thread_count = 1
            images = [*self._context.decode(av.Packet(memory[: setup.key_size])), *self._context.decode(None)]
            self._context.flush_buffers()
        except (av.error.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError) as error:
            raise CliprlError(short_reason(error)) from error
        if not images:
            raise CliprlError("it gives no frame")

    def __call__(self, message: SentPacket | None, memory: mmap) -> list[SentImage] | None:
        """Answer one message."""
        packet: Any = None
        if message is not None:
            packet = av.Packet(memory[: message.size])
            packet.pts, packet.dts, packet.duration = message.pts, message.dts, message.duration
            packet.time_base = message.time_base
        try:
            images = self._context.decode(packet)
            if packet is None:
                self._context.flush_buffers()
        except av.error.InvalidDataError:
            return None
        except (av.error.FFmpegError, OSError, ValueError, RuntimeError) as error:
            raise CliprlError(short_reason(error)) from error
        free, sent = memoryview(memory), []
        for image in images:
            luma, chroma = planes_in(free, image.height, image.width)
            self._writer.write(image, luma, chroma, image_color(image, self._context))
            free = free[luma.size + chroma.size :]
            color = tuple(int(getattr(image, name, getattr(self._context, name, 2))) for name in _COLOR)
            size = image.height, image.width
            sent.append(SentImage(image.pts, image.duration or 0, image.key_frame, image.is_corrupt, *size, color))
        return sent
