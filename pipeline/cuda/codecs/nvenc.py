"""Encode video with NVENC: frames with their overlay are read from GPU memory and are never downloaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Self

import av
from av.packet import Packet
from av.video.frame import CudaContext

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.cuda.codecs.timed_stream import TimedStream
from cliprl.pipeline.cuda.context import Encoding, GpuContext
from cliprl.pipeline.cuda.gpu_api import Buffer, Gpu
from cliprl.pipeline.sinks.video.encoder import PRESETS, VideoEncoder
from cliprl.pipeline.sinks.video.live_encoding import OpenStream

# NVENC's counterparts of x264's presets, and the number of frames it may hold back before the first packet.
_EFFORT = {preset: f"p{1 + index}" for index, preset in enumerate(PRESETS)}
_DELAY = 2
# Seconds after which a call of NVENC counts as hung; the first one opens it.
HUNG_SECONDS = 30.0
FAILURES = (av.error.FFmpegError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Surface:
    """Memory that NVENC reads. It gets the address of luma and expects chroma directly behind, so both are one allocation."""

    luma: Buffer
    chroma: Buffer

    @classmethod
    def of(cls, gpu: Gpu, height: int, width: int) -> Self:
        """Allocate the memory for an image of even height and width."""
        lines, size = height * width, height * width * 3 // 2
        memory = gpu.empty((size,), "uint8")
        chroma = gpu.slice(memory, lines, size, (height // 2, width // 2, 2))
        return cls(gpu.slice(memory, 0, lines, (height, width)), chroma)

    def image(self, gpu: Gpu, context: CudaContext | None) -> av.VideoFrame:
        """Wrap this memory as a libav frame."""
        planes: Any = (gpu.capsule(self.luma), gpu.capsule(self.chroma))
        return av.VideoFrame.from_dlpack(planes, "nv12", cuda_context=context)


class NvencEncoder(VideoEncoder):
    """A `VideoEncoder` for frames of a device's ring.

    Each frame is copied on the GPU, so that its slot is free at once. The copy's memory is used again after its packet has
    arrived: NVENC has read it then. Where NVENC fails or hangs, libx264 encodes these copies and all further frames; if that is
    at the first one, in the stream that `reopen` returns for a new file.
    """

    def __init__(
        self,
        stream: Any,
        first: Frame,
        info: StreamInfo,
        *,
        device: GpuContext,
        encoding: Encoding,
        reopen: Callable[[], Any],
        **settings: Any,
    ) -> None:
        self._device, self._gpu = device, device.gpu
        self._on_host: Callable[[Any], VideoEncoder] = lambda stream: VideoEncoder(stream, first, info, **settings)
        self._context = libav_context(self._gpu, encoding)
        self._copying, self._copied = device.stream(), device.gpu.event()
        self._free: list[Surface] = []
        self._opened = self._on_cpu = False
        self._given: deque[tuple[Surface, av.VideoFrame]] = deque()
        self._file_stream, self._reopen = stream, reopen
        self._timed = TimedStream(stream, HUNG_SECONDS)
        super().__init__(self._timed, first, info, **settings)
        stream.codec_context.pix_fmt = encoding.pix_fmt
        self.notes["encoder"] = f"encoded on the GPU by {encoding.codec}"

    def _options(self, first: Frame, info: StreamInfo, crf: float, preset: str) -> dict[str, str]:
        return options(crf, preset)

    def _image_of(self, frame: Frame) -> av.VideoFrame:
        gpu, ring = self._gpu, self._device.frames
        slot = ring.enter(frame, self._copying)
        source = (slot.luma, slot.chroma)
        form = (slot.size, frame.color, frame.sample_aspect or 1)
        if self._on_cpu or form != (self._size, self._color, self._aspect or 1):
            self._copy(source, (frame.luma, frame.chroma))
            fitted = super()._image_of(frame)
            if self._on_cpu:
                ring.leave(frame, self._copying)
                return fitted
            source = self._pinned(fitted)
        surface = self._free.pop() if self._free else Surface.of(gpu, *self._size)
        self._copy(source, (surface.luma, surface.chroma))
        ring.leave(frame, self._copying)
        image = surface.image(gpu, self._context)
        image.time_base = self._time_base
        self._given.append((surface, image))
        return image

    def _copy(self, planes: tuple[Buffer, Buffer], targets: tuple[Buffer, Buffer]) -> None:
        """Copy planes and wait: NVENC reads on its own stream, which does not synchronize with this one's."""
        for target, plane in zip(targets, planes, strict=True):
            self._gpu.copy(target, plane, self._copying)
        self._gpu.record(self._copied, self._copying)
        self._gpu.synchronize(self._copied)

    def _pinned(self, image: av.VideoFrame | None = None) -> tuple[Buffer, Buffer]:
        """Allocate pinned planes of the video's size, with the pixels of an image on the host: this is rare."""
        height, width = self._size
        luma = self._gpu.pinned((height, width), "uint8")
        chroma = self._gpu.pinned((height // 2, width // 2, 2), "uint8")
        if image is not None:
            pixels = image.to_ndarray()
            luma[...], chroma[...] = pixels[:height], pixels[height:].reshape(chroma.shape)
        return luma, chroma

    def encode(self, frame: Frame) -> list[Packet[Any]]:
        """See `VideoEncoder`."""
        with nullcontext() if self._opened else CAPTURE_LOCK:  # the first frame opens the encoder
            try:
                packets = super().encode(frame)
            except FAILURES as error:
                return self._encode_on_cpu(error, f"from frame {frame.index} on")
        self._opened = True
        for _ in () if self._on_cpu else packets:
            self._free.append(self._given.popleft()[0])
        return packets

    def flush(self) -> list[Packet[Any]]:
        """See `VideoEncoder`."""
        try:
            return super().flush()
        except FAILURES as error:
            return [*self._encode_on_cpu(error, "for the last frames"), *super().flush()]
        finally:
            self.close()

    def close(self) -> None:
        """See `VideoEncoder`."""
        self._timed.close()

    def _encode_on_cpu(self, error: Exception, place: str) -> list[Packet[Any]]:
        """Let libx264 go on with the frames that NVENC has not encoded. Raises the error if it is libx264's."""
        if self._on_cpu:
            raise error
        self.close()
        self.notes["encoder"] += f", {place} on the CPU by libx264: it failed ({short_reason(error)})"
        self._on_cpu = True
        if self._opened:
            self._stream = OpenStream(self._file_stream).add_stream("libx264")
            self._on_host(self._stream).repeat_headers()  # which differ from those in the file's header
        else:
            self._stream = self._reopen()
            self._on_host(self._stream)
        packets: list[Packet[Any]] = []
        planes = self._pinned()
        for surface, image in self._given:
            self._copy((surface.luma, surface.chroma), planes)
            self._picture.make_writable()
            self._fill(*planes)
            self._picture.pts, self._picture.duration = image.pts, image.duration
            packets += self._stream.encode(self._picture)
        self._given.clear()
        return packets


def options(crf: float, preset: str) -> dict[str, str]:
    """Return NVENC's options for x264's constant rate factor and preset."""
    quality = {"rc": "vbr", "cq": f"{crf:g}"} if crf else {"tune": "lossless"}
    return {"preset": _EFFORT[preset], "bf": "0", "delay": str(_DELAY), "flags": "+frame_duration"} | quality


def live_options(crf: float, preset: str) -> dict[str, str]:
    """Return NVENC's options for a live output: every frame gives its packet at once."""
    chosen = options(crf, preset) | {"delay": "0", "zerolatency": "1", "no-scenecut": "1"}
    return chosen if crf == 0 else chosen | {"tune": "ull"}


def why_not_size(height: int, width: int, *, interlaced: bool) -> str:
    """Return the reason why frames of this kind can't be encoded on any GPU, "" where they may."""
    if height % 2 or width % 4:
        return f"{width}x{height}: height must be even, width a multiple of 4"
    return "interlaced video keeps its fields on the CPU alone" if interlaced else ""


def libav_context(gpu: Gpu, encoding: Encoding) -> CudaContext | None:
    """Return torch's context for libav: see `cliprl.pipeline.cuda.codecs.nvdec.NvdecSource`."""
    gpu.bind()
    return CudaContext(encoding.index, primary_ctx=False, current_ctx=True) if encoding.pix_fmt == "cuda" else None


def short_reason(error: BaseException) -> str:
    """Return the last line of libav's log where there is one: it says more than the error's name."""
    log = getattr(error, "log", None)
    return " ".join(str(log[2] if log else error).split()) or type(error).__name__
