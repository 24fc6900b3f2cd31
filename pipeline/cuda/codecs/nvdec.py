"""Decode video with NVDEC: decoder surfaces are copied into the ring on the GPU and are never downloaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import av
import numpy as np
from av.codec.hwaccel import HWAccel

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.engines.errors import CliprlError, line_of
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Plane
from cliprl.pipeline.cuda.context import GpuContext
from cliprl.pipeline.cuda.gpu_api import Event
from cliprl.pipeline.cuda.kernels.kernel_arguments import Narrow
from cliprl.pipeline.sources.decoding.decode import Decoded
from cliprl.pipeline.sources.decoding.nv12_writer import PlaneWriter
from cliprl.pipeline.sources.decoding.stream_selection import select
from cliprl.pipeline.sources.display_matrix import OrientationReader
from cliprl.pipeline.sources.video import VideoSource

# Pixel formats of the coded video that NVDEC outputs as NV12 or P010; all others are decoded on the CPU.
DECODABLE = ("yuv420p", "yuvj420p", "nv12", "yuv420p10le", "p010le")

# Options of libav's CUDA device: use the context that is current in the calling thread.
CONTEXT: dict[str, object] = {"primary_ctx": "0", "current_ctx": "1"}


def open_on_gpu(
    name: str, device: GpuContext, index: int, log: Callable[[str], None], stream: int | None = None
) -> VideoSource | None:
    """Open a video file with NVDEC. Return None, and pass the reason to `log`, where GPU, codec or pixel format do not allow it.

    `stream` as for `open_source`.
    """
    try:
        _check_format(name, stream)
        return NvdecSource(name, device, index, stream)
    except (CliprlError, OSError, ValueError, RuntimeError, NotImplementedError, av.error.FFmpegError) as error:
        reason = line_of(error)
        log(f"no NVDEC for this video ({reason}): it is decoded on the CPU and sent to the GPU from pinned memory")
        return None


def _check_format(name: str, stream: int | None) -> None:
    """Raise CliprlError for a pixel format that NVDEC does not support. A hardware decoder does not report the format itself."""
    with av.open(name, metadata_errors="replace") as container:
        context = select(container, name, stream)[0].codec_context
        found = context.pix_fmt
        odd = context.width % 2 or context.height % 2
    if found not in DECODABLE:
        raise CliprlError(f"pixel format {found or 'unknown'} is none of {', '.join(DECODABLE)}")
    if odd:
        raise CliprlError("its width or height is odd")


class NvdecSource(VideoSource):
    """A video file decoded on GPU number `index` into the slots of the stream's ring.

    Frames that NVDEC cannot decode, for example after a change of size, are decoded on the CPU and uploaded by the ring.
    """

    def __init__(self, name: str, device: GpuContext, index: int, stream: int | None = None) -> None:
        self._surfaces, self._opened = SurfaceWriter(device), False
        with CAPTURE_LOCK:
            # Torch's context, so that surfaces can be copied into slots. It is passed as the thread's current context: libav
            # does not retain a primary context with other scheduling flags than its own.
            device.gpu.bind()
            super().__init__(name, hwaccel=HWAccel("cuda", index, options=CONTEXT, is_hw_owned=True), stream=stream)
        self._opened = True
        found = OrientationReader().read(self._held.image) if self._held is not None else None
        if self.crop or (found is not None and found.mirrored):
            self.close()
            raise CliprlError(f"its frames are to be {'cropped' if self.crop else 'mirrored'}")

    def _plane_writer(self) -> SurfaceWriter:
        return self._surfaces

    def _decode(self) -> Decoded | None:
        decoded = super()._decode()
        if decoded is None or is_surface(decoded.image):
            return decoded
        if not self._opened:
            raise CliprlError("NVDEC can't decode its frames")
        self.note(f"from frame {self._index} on decoded on the CPU where NVDEC can't decode a frame (its size changed)")
        return decoded

    def close(self) -> None:
        """Release the file and the decoder, which ends with the last reference to its context or to a surface."""
        with CAPTURE_LOCK:
            super().close()
            self._surfaces.close()
            for name in ("_decoder", "_packets", "_container"):
                vars(self).pop(name, None)


def is_surface(image: Any) -> bool:
    """Whether a decoded image lies in GPU memory."""
    return bool(image.format.name == "cuda")


class SurfaceWriter:
    """Copies decoder surfaces into the acquired slot. A surface is held until its copy is done: the decoder has few of them.

    An image in host memory is written into the slot's pinned planes, which the ring uploads.
    """

    on_host = False

    def __init__(self, device: GpuContext, *, surface: Callable[[Any], bool] = is_surface) -> None:
        self._device, self._is_surface = device, surface
        self._reading: deque[tuple[Event, Any]] = deque()
        self._spare: list[Event] = []
        self._decoded = device.gpu.event()
        self._host = PlaneWriter()

    def write(self, image: Any, luma: Plane, chroma: Plane, color: ColorSpace) -> None:
        """Copy an image into the slot with the pinned planes `luma` and `chroma`; a surface leaves these unchanged."""
        if not self._is_surface(image):
            self._host.write(image, luma, chroma, color)
            return
        gpu, ring = self._device.gpu, self._device.frames
        slot = ring.writing()
        # The ring's stream does not synchronize with the stream that the surface is written on.
        gpu.record(self._decoded, gpu.decoding())
        gpu.wait(ring.stream, self._decoded)
        surfaces = [gpu.surface(plane) for plane in image.planes]
        for target, surface in zip((slot.luma, slot.chroma), surfaces, strict=True):
            self._copy(target, surface)
        self._hold(image, surfaces)

    def close(self) -> None:
        """Release all surfaces, after their copies."""
        while self._reading:
            self._device.gpu.synchronize(self._reading.popleft()[0])

    def _copy(self, target: Any, surface: Any) -> None:
        gpu, stream = self._device.gpu, self._device.frames.stream
        if surface.dtype.itemsize == 1:
            gpu.copy(target, surface, stream)
            return
        lines, samples = len(surface), int(np.prod(tuple(surface.shape[1:])))
        source = (gpu.address(surface), gpu.pitch(surface))
        gpu.launch(Narrow(samples, lines, *source, samples, gpu.address(target)), stream)

    def _hold(self, image: Any, surfaces: Any) -> None:
        gpu = self._device.gpu
        event = self._spare.pop() if self._spare else gpu.event()
        gpu.record(event, self._device.frames.stream)
        self._reading.append((event, (image, surfaces)))
        while self._reading and gpu.done(self._reading[0][0]):
            self._spare.append(self._reading.popleft()[0])
