"""Segmenters on the simulated GPU for the live path's worker, and a device for the command."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_fake import FakeGpu, HostNetwork
from live_faults import FAULTS, seen

from cliprl.engines import Bundle, ignore_message, load_engines
from cliprl.pipeline import Frame, Segmentation
from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.ring import CudaRing
from cliprl.pipeline.live.segmentation.device_segmenter import HostFrameSegmenter
from cliprl.pipeline.segment.segmenter import Segmenter

LOST = "CUDA error: an illegal memory access was encountered"


class BrightOnGpu:
    """The honest segmenter of `live_faults`, which reads the frame from the GPU."""

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu, self._stream, self._done = gpu, gpu.stream(), gpu.event()

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        self._ring = CudaRing(self._gpu, slots, policy, self._gpu.stream())
        return self._ring

    def __call__(self, frame: Frame) -> Segmentation:
        gpu, slot = self._gpu, self._ring.enter(frame, self._stream)
        host = gpu.pinned(slot.luma.shape, slot.luma.dtype)
        gpu.copy(host, slot.luma, self._stream)
        self._ring.leave(frame, self._stream)
        gpu.record(self._done, self._stream)
        gpu.synchronize(self._done)
        return seen(Frame(host, frame.chroma, frame.pts, frame.time_base, frame.index, frame.color))


@dataclass(frozen=True)
class MakeOnGpu:
    """As `live_faults.Make`, on the simulated GPU; the fault "lost" is a GPU that fails every call from then on."""

    seconds: float = 0.0
    faults: Path | None = None

    def __call__(self) -> Callable[[Frame], Segmentation]:
        gpu = FakeGpu(random.Random(1).randrange)
        segment = HostFrameSegmenter(BrightOnGpu(gpu))

        def with_faults(frame: Frame) -> Segmentation:
            time.sleep(self.seconds)
            for name in (*FAULTS, "lost"):
                if self.faults is not None and (self.faults / name).exists():
                    (self.faults / name).unlink()
                    if name != "lost":
                        return FAULTS[name](frame)
                    gpu.lost = LOST
            return segment(frame)

        return with_faults


class SimulatedDevice(CudaDevice):
    """The `cuda` device of the simulated GPU, with networks of the CPU."""

    def __init__(self, gpu: FakeGpu) -> None:
        super().__init__(share(gpu, lambda engine: HostNetwork(gpu, engine)))

    def segmenter(self, bundle: Bundle, **settings: Any) -> Segmenter:
        settings = {key: settings[key] for key in ("steps", "budget_ms") if key in settings}
        return super().segmenter(bundle, engines=load_engines(bundle, precision="f32", threads=1), **settings)


def open_device(log: Callable[[str], None] = ignore_message) -> SimulatedDevice:
    if "GPU_OPENED" in os.environ:  # the file that a test expects
        Path(os.environ["GPU_OPENED"]).touch()
    return SimulatedDevice(FakeGpu(random.Random(2).randrange))


def check_device() -> None:
    """There is always one."""
