"""The GPU as one video stream uses it: what all streams share, and the stream's own ring and CUDA streams."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cliprl.engines import Engine
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.cuda.gpu_api import CudaStream, Gpu, Network
from cliprl.pipeline.cuda.ring import CudaRing
from cliprl.pipeline.cuda.scheduling import GpuTurns


@dataclass(frozen=True, slots=True)
class Encoding:
    """A libav encoder that reads frames in the memory of GPU number `index`, in the pixel format `pix_fmt`."""

    codec: str = "h264_nvenc"
    pix_fmt: str = "cuda"
    index: int = 0


@dataclass(frozen=True, slots=True)
class SharedGpu:
    """A GPU and what its video streams share: the compute stream, the turns on it, and how an engine becomes a network.

    `notes` explain the choices made at start-up, one sentence each. `decoder` is the GPU's number for libav's NVDEC and
    `encoding` describes its NVENC; None disables either. `contexts` are those of the video streams.
    """

    gpu: Gpu
    network: Callable[[Engine], Network]
    notes: tuple[str, ...] = ()
    turns: GpuTurns = field(default_factory=GpuTurns)
    compute: CudaStream = None
    decoder: int | None = None
    encoding: Encoding | None = None
    contexts: weakref.WeakSet[GpuContext] = field(default_factory=weakref.WeakSet)


def share(
    gpu: Gpu,
    network: Callable[[Engine], Network],
    notes: Sequence[str] = (),
    decoder: int | None = None,
    encoding: Encoding | None = None,
) -> SharedGpu:
    """Make a `SharedGpu` with a new compute stream."""
    return SharedGpu(gpu, network, tuple(notes), compute=gpu.stream(), decoder=decoder, encoding=encoding)


class GpuContext:
    """One video stream's access to a shared GPU. `ring` is called once; the CUDA streams return to the GPU with the object."""

    def __init__(self, shared: SharedGpu) -> None:
        self.gpu, self.turns, self.network, self.notes = shared.gpu, shared.turns, shared.network, shared.notes
        self.compute, self.decoder, self.encoding = shared.compute, shared.decoder, shared.encoding
        self.contexts = shared.contexts
        self.contexts.add(self)
        self._ring: CudaRing | None = None
        self._streams: list[CudaStream] = []
        weakref.finalize(self, _give_back, self.gpu, self._streams).atexit = False

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """Make the ring of slots in GPU memory, with pinned planes for decoders and encoders that work on the host."""
        with CAPTURE_LOCK:
            self._ring = CudaRing(self.gpu, slots, policy, self.stream(urgent=True))
        return self._ring

    @property
    def frames(self) -> CudaRing:
        """The ring that holds the frames. Raises ValueError before `ring` was called."""
        if self._ring is None:
            raise ValueError("frames of this device come from its ring: call `ring` first")
        return self._ring

    def stream(self, *, urgent: bool = False) -> CudaStream:
        """Take a CUDA stream for this video stream alone: `urgent` for short work that frames wait for."""
        with CAPTURE_LOCK:
            self._streams.append(self.gpu.stream(urgent=urgent))
        return self._streams[-1]

    def settle(self) -> None:
        """Wait for all GPU work of this video stream, so that its memory can be freed."""
        streams = (*self._streams, self.compute)
        with CAPTURE_LOCK:
            events = [self.gpu.event() for _ in streams]
            for event, stream in zip(events, streams, strict=True):
                self.gpu.record(event, stream)
            for event in events:
                self.gpu.synchronize(event)


def _give_back(gpu: Gpu, streams: Sequence[CudaStream]) -> None:
    for stream in streams:
        gpu.give_back(stream)
