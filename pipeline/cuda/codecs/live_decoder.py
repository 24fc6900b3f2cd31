"""NVDEC for live sources, whose frames go to host memory: in a separate process, so that no raw frame waits for a GPU.

The CPU decodes from the first frame on. The process opens the decoder meanwhile, and takes over at a key frame. When it fails or
hangs, the CPU decodes the packets since a key frame again, and goes on: no frame is lost or shown twice.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from mmap import mmap
from typing import Any

import av
import numpy as np

from cliprl.engines import CliprlError, ignore_message
from cliprl.pipeline.core.child_process import planes_in
from cliprl.pipeline.core.frame import Plane
from cliprl.pipeline.cuda.codecs.codec_process import CodecProcess, Work
from cliprl.pipeline.cuda.codecs.host_frame_decoder import (
    DecoderSetup,
    HostFrameDecoder,
    SentImage,
    SentPacket,
)
from cliprl.pipeline.cuda.codecs.nvdec import DECODABLE
from cliprl.pipeline.sources.decoding.low_latency import has_key

# Seconds that a packet may take, less than the display takes for a stall.
NVDEC_SECONDS = 0.25
# Frames that a decoder may hold back to put them in order (H.264: 16), and the most packets that are kept to be decoded again.
_REORDERED, _MOST_KEPT = 16, 1500
# Packets in a row without a frame after which the decoder is taken for broken.
_SILENT = 48


class HardwareDecoderError(CliprlError):
    """The decoder of a GPU can't be opened, has failed, or hangs."""


class HostPlane(np.ndarray[Any, Any]):
    """A plane of a `HostImage`, with the attributes of libav's."""

    line_size: int
    height: int
    width: int


class HostImage:
    """A decoded NV12 image in host memory, with the attributes of a libav frame that sources read."""

    interlaced_frame, side_data = False, ()

    def __init__(self, sent: SentImage, luma: Plane, chroma: Plane, opaque: Any) -> None:
        self.pts, self.duration, self.key_frame, self.is_corrupt = sent[:4]
        self.height, self.width, self.opaque = sent.height, sent.width, opaque
        self.colorspace, self.color_range, self.color_primaries, self.color_trc = sent.color
        self.format = av.VideoFormat("nv12", sent.width, sent.height)
        self.planes = [_plane(luma, sent.width), _plane(chroma, sent.width // 2)]


def _plane(pixels: Plane, width: int) -> HostPlane:
    plane = pixels.reshape(len(pixels), -1).copy().view(HostPlane)
    plane.line_size, plane.height, plane.width = plane.shape[1], len(plane), width
    return plane


class LiveDecoder:
    """The decoder of a live source: the GPU's from a key frame on, once it is ready, and the CPU's before and after a failure.

    Attributes that it lacks are those of `software`, the CPU's context. `notes` name the decoder and the reason. `refused` is
    shared by the decoders of a run; one that can't be opened writes the reason there, and those of later connections do not try.
    """

    def __init__(
        self,
        software: Any,
        log: Callable[[str], None] = ignore_message,
        *,
        make: Callable[[DecoderSetup, mmap], Work] = HostFrameDecoder,
        seconds: float = NVDEC_SECONDS,
        refused: list[str] | None = None,
    ) -> None:
        self._refused = [] if refused is None else refused
        self.software, self.notes = software, list(self._refused)
        self._log, self._make, self._seconds = log, make, seconds
        self._process: CodecProcess | None = None
        self._on, self._off, self._served = False, bool(self._refused), False
        self._held: list[Any] = []  # the CPU's last images before the GPU's first
        self._kept: list[Any] = []  # packets since a key frame
        self._newest_key = 0  # the newest key frame among them
        self._given: deque[int | None] = deque(maxlen=_MOST_KEPT)
        self._stamps: dict[int, Any] = {}
        self._silent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.software, name)

    def decode(self, packet: Any) -> list[Any]:
        """The images that are ready; None flushes. Raises as the CPU's context does."""
        try:
            images = list(self.software.decode(packet)) if self._off else self._decode(packet)
        except HardwareDecoderError as error:
            images = self._fall_back(error, packet)
        held, self._held = self._held, []
        return [*held, *images]

    def flush_buffers(self) -> None:
        """Forget the packets in the decoder: others before the next were dropped. The CPU decodes until a key frame."""
        self._kept.clear()
        self._newest_key = 0
        self.software.flush_buffers()
        if self._on and self._process is not None:
            self._on = False
            try:
                self._process.call(None, self._seconds)
            except HardwareDecoderError as error:
                self.give_up(error)

    def give_up(self, error: HardwareDecoderError) -> None:
        """Let the CPU decode the packets from now on, and note why."""
        self._on = False
        self.close()
        text = f"decoded on the CPU: no NVDEC ({error})"
        self._note(text)
        if not self._served:
            self._refused.append(text)

    def close(self) -> None:
        """End the process."""
        self._off, process, self._process = True, self._process, None
        self._kept.clear()
        if process is not None:
            process.close()

    def _decode(self, packet: Any) -> list[Any]:
        if packet is None:
            return self._hardware(None) if self._on else list(self.software.decode(None))
        is_key = packet.is_keyframe or (self.software.name == "h264" and has_key(bytes(packet)))
        self._keep(packet, is_key=is_key)
        if is_key and not self._on:
            self._begin(packet)
        if self._on:
            return self._hardware(packet)
        images = list(self.software.decode(packet))
        if any(image.interlaced_frame for image in images):
            self.give_up(HardwareDecoderError("interlaced video is decoded on the CPU alone"))
        return images

    def _begin(self, packet: Any) -> None:
        """At a key frame: start the process, or change to it if it is ready."""
        if self._process is None:
            self._process = self._start(packet)
        if not self._process.is_ready(0):
            return
        self._on = self._served = True
        self._note("decoded on the GPU by NVDEC")
        self._held += self.software.decode(None)
        self.software.flush_buffers()
        self._kept, self._newest_key = [packet], 0  # the CPU has decoded those before

    def _start(self, packet: Any) -> CodecProcess:
        software = self.software
        pixels, odd = software.pix_fmt, software.width % 2 or software.height % 2
        if pixels and (pixels not in DECODABLE or odd):
            raise HardwareDecoderError(f"{pixels} of {software.width}x{software.height} is decoded on the CPU alone")
        setup = DecoderSetup(software.name, bytes(software.extradata or b""), int(software.flags), packet.size)
        make = partial(self._make, setup)
        return CodecProcess(make, "the process of NVDEC", HardwareDecoderError, bytes(packet))

    def _hardware(self, packet: Any) -> list[Any]:
        assert self._process is not None
        message = None
        if packet is not None:
            if packet.pts is None:
                raise HardwareDecoderError("a packet has no time")
            self._process.memory[: packet.size] = bytes(packet)
            message = SentPacket(packet.size, packet.pts, packet.dts, packet.duration or 0, packet.time_base)
            self._stamps[packet.pts] = packet.opaque
        sent = self._process.call(message, self._seconds)
        if sent is None:
            raise ValueError("a packet is damaged")
        self._silent = 0 if sent else self._silent + 1
        if self._silent > _SILENT:
            raise HardwareDecoderError(f"{self._silent} packets gave no frame")
        return self._images(sent)

    def _images(self, sent: list[SentImage]) -> list[Any]:
        assert self._process is not None
        free, images = memoryview(self._process.memory), []
        for image in sent:
            luma, chroma = planes_in(free, image.height, image.width)
            images.append(HostImage(image, luma, chroma, self._stamps.get(image.pts or 0)))
            free = free[luma.size + chroma.size :]
            self._given.append(image.pts)
        if len(self._stamps) > _MOST_KEPT:
            self._stamps = dict(list(self._stamps.items())[-_SILENT:])
        return images

    def _keep(self, packet: Any, *, is_key: bool) -> None:
        if is_key:
            del self._kept[: self._newest_key]
            self._newest_key = len(self._kept)
        if self._kept or is_key:
            self._kept.append(packet)
        if len(self._kept) - self._newest_key > _REORDERED:  # no frame before the key frame is still inside
            del self._kept[: self._newest_key]
            self._newest_key = 0
        if len(self._kept) > _MOST_KEPT:
            self._kept.clear()

    def _fall_back(self, error: HardwareDecoderError, packet: Any) -> list[Any]:
        """Decode on the CPU from now on. Return the frames that the GPU's decoder did not give."""
        was_on, kept, given = self._on, list(self._kept), Counter(self._given)
        self.give_up(error)
        if not was_on:
            return list(self.software.decode(packet))
        images: list[Any] = []
        for again in [*kept, *([None] if packet is None else [])]:
            try:
                images += self.software.decode(again)
            except (av.error.FFmpegError, ValueError):
                continue  # it gave no frame on the GPU either
        fresh = []
        for image in images:
            if given[image.pts]:
                given[image.pts] -= 1
            else:
                fresh.append(image)
        return fresh

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self._log(text)
