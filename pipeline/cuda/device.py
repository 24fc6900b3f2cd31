"""The `cuda` device: one video stream's frames on a GPU that several streams may share."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, ClassSpec, Engine, ignore_message
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, Sink
from cliprl.pipeline.core.ring_buffer import FrameRing, Policy
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.geometry import filters, inside_spans
from cliprl.pipeline.cuda.gpu_api import Gpu, Network, Stream
from cliprl.pipeline.cuda.overlay import CudaOverlay
from cliprl.pipeline.cuda.pictures import Planes, prepare_arguments
from cliprl.pipeline.cuda.ring import CudaRing, Slot
from cliprl.pipeline.cuda.scheduling import GpuTurns
from cliprl.pipeline.cuda.segmenter import CudaSegmenter
from cliprl.pipeline.cuda.upload import UploadBuffers
from cliprl.pipeline.overlay.overlay import Overlay, Style
from cliprl.pipeline.segment.segmenter import Segmenter

if TYPE_CHECKING:
    from cliprl.pipeline.sources import FrameSource


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoder of libav's that takes frames as they lie on the GPU number `index`, in the pixel format `pix_fmt`."""

    codec: str = "h264_nvenc"
    pix_fmt: str = "cuda"
    index: int = 0


@dataclass(frozen=True, slots=True)
class SharedGpu:
    """A GPU with what all its video streams share: the stream that computes, the turns on it, how an engine runs there.

    `notes` say, a sentence each, what was chosen at start-up and why. `decoder` is the number under which libav's NVDEC finds
    the GPU, and `encoding` its NVENC; None where it is not to be tried.
    """

    gpu: Gpu
    network: Callable[[Engine], Network]
    notes: tuple[str, ...] = ()
    turns: GpuTurns = field(default_factory=GpuTurns)
    compute: Stream = None
    decoder: int | None = None
    encoding: Encoding | None = None


class CudaDevice:
    """The operations that touch pixels, on a GPU; for one video stream: `ring` is called once. See `pipeline.device.Device`."""

    name = "cuda"

    def __init__(self, card: SharedGpu) -> None:
        self.gpu, self.turns, self.network, self.notes = card.gpu, card.turns, card.network, card.notes
        self.compute, self.decoder, self.encoding = card.compute, card.decoder, card.encoding
        self.ranges: Callable[[str], AbstractContextManager[object]] | None = card.gpu.range
        self._ring: CudaRing | None = None
        self._streams: list[Stream] = []
        weakref.finalize(self, _give_back, self.gpu, self._streams).atexit = False

    def source(
        self, name: str, say: Callable[[str], None] = ignore_message, *, stream: int | None = None
    ) -> FrameSource:
        """A video file by NVDEC where there is one for it, everything else as `open_source` opens it."""
        if self.decoder is not None and Path(name).is_file():
            from cliprl.pipeline.cuda.codecs.nvdec import open_on_gpu

            found = open_on_gpu(name, self, self.decoder, say, stream)
            if found is not None:
                return found
        from cliprl.pipeline.sources import open_source

        return open_source(name, stream=stream)

    def sink(self, target: str, scene: OutputSpec, **settings: Any) -> Sink:
        """A video file by NVENC where there is one for it, everything else as `open_sink` opens it."""
        from cliprl.pipeline.sinks import open_sink
        from cliprl.pipeline.sinks.factory import is_video

        if self.encoding is None or not is_video(target, scene):
            return open_sink(target, scene, **settings)
        from cliprl.pipeline.cuda.codecs.nvenc import open_nvenc_sink

        return open_nvenc_sink(Path(target), scene, self, self.encoding, **settings)

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """A ring of slots in GPU memory, with pinned planes for decoders and encoders that work on the host."""
        self._ring = CudaRing(self.gpu, slots, policy, self.stream())
        return self._ring

    def stream(self) -> Stream:
        """A stream for work of this video stream's alone."""
        self._streams.append(self.gpu.stream())
        return self._streams[-1]

    def settle(self) -> None:
        """Wait for all that the GPU was given for this video stream, so that its memory can go."""
        events = [self.gpu.event() for _ in (*self._streams, self.compute)]
        for event, stream in zip(events, self._streams, strict=False):
            self.gpu.record(event, stream)
        with self.turns.take():  # somebody may be recording a graph, in which this must not end up
            self.gpu.record(events[-1], self.compute)
        for event in events:
            self.gpu.synchronize(event)

    @property
    def frames(self) -> CudaRing:
        """The ring that the frames lie in."""
        if self._ring is None:
            raise ValueError("frames of this device come from its ring: call `ring` first")
        return self._ring

    def planes(self, slot: Slot) -> Planes:
        """Address and pitch of a slot's luma and chroma."""
        (_, width), (_, half, _) = slot.luma.shape, slot.chroma.shape
        return (self.gpu.address(slot.luma), int(width)), (self.gpu.address(slot.chroma), 2 * int(half))

    def prepare(self, frame: Frame, view: Viewport, out: NDArray[np.uint8]) -> None:
        """Write the network's RGB picture, uint8 (H, W, 3), of a taken frame, and wait for it: see `CpuDevice.prepare`."""
        gpu, stream = self.gpu, self.frames.stream
        staging, picture, done = UploadBuffers(gpu, stream), gpu.empty(out.shape, np.uint8), gpu.event()
        tables = [*(array for taps in filters(view) for array in taps), inside_spans(view, *out.shape[:2])]
        sent = [staging.send(str(index), table) for index, table in enumerate(tables)]
        planes = self.planes(self.frames.enter(frame, stream))
        gpu.launch(prepare_arguments(view, frame.color, planes, sent, gpu.address(picture)), stream)
        self.frames.leave(frame, stream)
        host = gpu.pinned(out.shape, np.uint8)
        gpu.copy(host, picture, stream)
        gpu.record(done, stream)
        gpu.synchronize(done)
        np.copyto(out, host)

    def segmenter(self, bundle: Bundle, **settings: Any) -> Segmenter:
        """A segmenter for this device's frames; settings as for `Segmenter`."""
        return CudaSegmenter(bundle, device=self, **settings)

    def overlay(self, classes: Sequence[ClassSpec], style: Style | None = None) -> Overlay:
        """An overlay for this device's frames."""
        return CudaOverlay(classes, style, device=self)


def _give_back(gpu: Gpu, streams: Sequence[Stream]) -> None:
    for stream in streams:
        gpu.give_back(stream)


def share(
    gpu: Gpu,
    network: Callable[[Engine], Network],
    notes: Sequence[str] = (),
    decoder: int | None = None,
    encoding: Encoding | None = None,
) -> SharedGpu:
    """A card for a GPU, with a stream to compute on."""
    return SharedGpu(gpu, network, tuple(notes), compute=gpu.stream(), decoder=decoder, encoding=encoding)
