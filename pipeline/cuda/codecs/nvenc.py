"""Encode video with NVENC: frames with their overlay are read from GPU memory and are never downloaded."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Self

import av
from av.packet import Packet
from av.video.frame import CudaContext

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.cuda.context import Encoding, GpuContext
from cliprl.pipeline.cuda.gpu_api import Buffer, Gpu
from cliprl.pipeline.sinks.video.encoder import PRESETS, VideoEncoder
from cliprl.pipeline.sinks.video.letterbox import letterbox
from cliprl.pipeline.sinks.video.parallel_encoder import automatic_encoders
from cliprl.pipeline.sinks.video.video_file import VideoSink

# NVENC's counterparts of x264's presets, and the number of frames it may hold back before the first packet.
_EFFORT = {preset: f"p{1 + index}" for index, preset in enumerate(PRESETS)}
_DELAY = 2


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
    arrived: NVENC has read it then.
    """

    def __init__(
        self, stream: Any, first: Frame, info: StreamInfo, *, device: GpuContext, encoding: Encoding, **settings: Any
    ) -> None:
        self._device, self._gpu = device, device.gpu
        self._context = _context(self._gpu, encoding)
        self._copying, self._copied = device.stream(), device.gpu.event()
        self._free: list[Surface] = []
        self._opened = False
        self._given: deque[Surface] = deque()
        super().__init__(stream, first, info, **settings)
        stream.codec_context.pix_fmt = encoding.pix_fmt
        self.notes["encoder"] = f"encoded on the GPU by {encoding.codec}"

    def _options(self, first: Frame, info: StreamInfo, crf: float, preset: str) -> dict[str, str]:
        return options(crf, preset)

    def _image_of(self, frame: Frame) -> av.VideoFrame:
        gpu, stream, ring = self._gpu, self._copying, self._device.frames
        surface = self._free.pop() if self._free else Surface.of(gpu, *self._size)
        self._given.append(surface)
        slot = ring.enter(frame, stream)
        source = (slot.luma, slot.chroma)
        if slot.size != self._size:
            source = self._fitted(frame, source)
        gpu.copy(surface.luma, source[0], stream)
        gpu.copy(surface.chroma, source[1], stream)
        ring.leave(frame, stream)
        # NVENC reads on its own stream, which does not synchronize with this one.
        gpu.record(self._copied, stream)
        gpu.synchronize(self._copied)
        image = surface.image(gpu, self._context)
        image.time_base = frame.time_base
        return image

    def _fitted(self, frame: Frame, planes: tuple[Buffer, Buffer]) -> tuple[Buffer, Buffer]:
        """Fit a frame of another size into the video, on the host: this is rare."""
        self._note_size(frame)
        for target, source in zip((frame.luma, frame.chroma), planes, strict=True):
            self._gpu.copy(target, source, self._copying)
        self._gpu.record(self._copied, self._copying)
        self._gpu.synchronize(self._copied)
        fitted = letterbox(frame.luma, frame.chroma, *self._size, frame.color)
        pinned = [self._gpu.pinned(plane.shape, plane.dtype) for plane in fitted]
        for target, plane in zip(pinned, fitted, strict=True):
            target[...] = plane
        return pinned[0], pinned[1]

    def encode(self, frame: Frame) -> list[Packet[Any]]:
        """See `VideoEncoder`."""
        with nullcontext() if self._opened else CAPTURE_LOCK:  # the first frame opens the encoder
            packets = super().encode(frame)
        self._opened = True
        for _ in packets:
            self._free.append(self._given.popleft())
        return packets


def options(crf: float, preset: str) -> dict[str, str]:
    """Return NVENC's options for x264's constant rate factor and preset."""
    quality = {"rc": "vbr", "cq": f"{crf:g}"} if crf else {"tune": "lossless"}
    return {"preset": _EFFORT[preset], "bf": "0", "delay": str(_DELAY), "flags": "+frame_duration"} | quality


def live_options(crf: float, preset: str) -> dict[str, str]:
    """Return NVENC's options for a live output: every frame gives its packet at once."""
    chosen = options(crf, preset) | {"delay": "0", "zerolatency": "1", "no-scenecut": "1"}
    return chosen if crf == 0 else chosen | {"tune": "ull"}


def open_nvenc_sink(
    target: Path, spec: OutputSpec, device: GpuContext, encoding: Encoding, *, encoders: int = 0, **settings: Any
) -> VideoSink:
    """Open a video file for NVENC, or for libx264 where GPU, driver or frame size do not allow it; a note gives the reason.

    encoders: how many of libx264 encode at once; 0 is as many as suit the processors.
    """
    reason = why_not(device.gpu, encoding, spec.stream)
    if not reason:
        make = partial(NvencEncoder, device=device, encoding=encoding)
        sink = VideoSink(target, spec, encoder=make, codec=encoding.codec, **settings)
        sink.needs_planes = False
        return sink
    encoders = encoders or automatic_encoders(settings.get("preset", PRESETS[0]))
    sink = VideoSink(target, spec, encoders=encoders, **settings)
    how = f" by {encoders} encoders at once" if encoders > 1 else ""
    sink.notes.append(f"painted frames are downloaded and encoded on the CPU{how}: no NVENC for this video ({reason})")
    return sink


def why_not(gpu: Gpu, encoding: Encoding, info: StreamInfo) -> str:
    """Return the reason why frames of this stream can't be encoded on the GPU, "" where they can; encode one to know."""
    reason = why_not_size(info.height, info.width, interlaced=info.interlaced)
    if reason:
        return reason
    with CAPTURE_LOCK:
        return _try_encoding(gpu, encoding, info.width, info.height)


def why_not_size(height: int, width: int, *, interlaced: bool) -> str:
    """Return the reason why frames of this kind can't be encoded on any GPU, "" where they may."""
    if height % 2 or width % 4:
        return f"{width}x{height}: height must be even, width a multiple of 4"
    return "interlaced video keeps its fields on the CPU alone" if interlaced else ""


def _try_encoding(gpu: Gpu, encoding: Encoding, width: int, height: int) -> str:
    try:
        context: Any = av.CodecContext.create(encoding.codec, "w")
        context.width, context.height, context.pix_fmt = width, height, encoding.pix_fmt
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        image = Surface.of(gpu, height, width).image(gpu, _context(gpu, encoding))
        image.pts = 0
        packets = [*context.encode(image), *context.encode(None)]
    except (av.error.FFmpegError, OSError, ValueError, RuntimeError, NotImplementedError) as error:
        return short_reason(error)
    return "" if packets else "it gives no packet"


def _context(gpu: Gpu, encoding: Encoding) -> CudaContext | None:
    """Return torch's context for libav: see `cliprl.pipeline.cuda.codecs.nvdec.NvdecSource`."""
    gpu.bind()
    return CudaContext(encoding.index, primary_ctx=False, current_ctx=True) if encoding.pix_fmt == "cuda" else None


def short_reason(error: BaseException) -> str:
    """Return the last line of libav's log where there is one: it says more than the error's name."""
    log = getattr(error, "log", None)
    return " ".join(str(log[2] if log else error).split()) or type(error).__name__
