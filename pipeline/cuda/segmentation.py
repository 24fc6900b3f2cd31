"""Results of a frame on the GPU, and the status numbers that are copied to the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.confidence import ConfidenceModel
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.gpu_api import Buffer, CudaStream, Event, Gpu
from cliprl.pipeline.cuda.inference import (
    STATE_BYTES,
    NetworkShape,
    number_bytes,
    read_state,
    total_bytes,
)
from cliprl.pipeline.cuda.kernels.kernel_arguments import FrameData
from cliprl.pipeline.cuda.upload import FrameUpload

# Results kept at a time: one for each stage of a stream and each queue between stages, and some reserve.
RESULT_BUFFERS = 10


@dataclass(slots=True)
class FrameResult:
    """A frame's results on the GPU, and its status numbers in pinned memory.

    probabilities: float32 (K + P, h, w), those of the K classes of a mask, then what each of P parts had before it was merged.
    labels: uint8 (h, w). present: uint8 (K,), whether a class occurs. totals: float32 (K + 2,), cells of each class, the sum of
    confidences, and the cells inside the image. numbers: the memory of states and totals.
    `ready` completes when all are written. reading: the event after which they may be written again, None for at once.
    upload: pinned memory for what is sent with the frame.
    """

    probabilities: Buffer
    labels: Buffer
    present: Buffer
    totals: NDArray[np.float32]
    state: NDArray[np.uint8]
    ready: Event
    reading: Event | None = None
    numbers: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    upload: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))

    @classmethod
    def of(cls, gpu: Gpu, shape: NetworkShape, steps: int, upload: NDArray[np.uint8]) -> FrameResult:
        """Allocate the results of graphs with up to `steps` steps, laid out as `Inference.numbers`."""
        grid = (shape.rows, shape.columns)
        planes = shape.mask_classes + len(shape.parts)
        grids = gpu.empty((planes, *grid), np.float32), gpu.empty(grid, np.uint8)
        numbers = gpu.pinned((number_bytes(shape, steps),), np.uint8)
        totals, state = numbers[-total_bytes(shape) :].view(np.float32), numbers[:STATE_BYTES]
        present = gpu.empty((shape.mask_classes,), np.uint8)
        return cls(*grids, present, totals, state, gpu.event(), numbers=numbers, upload=upload)


class ResultBuffers:
    """The results of the latest `RESULT_BUFFERS` frames, far more than are in flight."""

    def __init__(self, gpu: Gpu, shape: NetworkShape, steps: int, upload: FrameUpload) -> None:
        self._gpu, self._next = gpu, 0
        self._held = [FrameResult.of(gpu, shape, steps, upload.pinned()) for _ in range(RESULT_BUFFERS)]

    def take(self, data: FrameData, stream: CudaStream) -> FrameResult:
        """Return the oldest result, to be overwritten on the stream; write its addresses."""
        result = self._held[self._next]
        self._next = (self._next + 1) % RESULT_BUFFERS
        if result.reading is not None:
            self._gpu.wait(stream, result.reading)
            result.reading = None
        address = self._gpu.address
        data.probabilities, data.labels = address(result.probabilities), address(result.labels)
        data.present = address(result.present)
        return result

    def keep(self, result: FrameResult, numbers: Buffer, steps: int, stream: CudaStream) -> None:
        """Enqueue the copy of the numbers of a graph with `steps` steps, after which the result is ready."""
        result.state = result.numbers[steps * STATE_BYTES : (steps + 1) * STATE_BYTES]
        self._gpu.copy(result.numbers, numbers, stream)
        self._gpu.record(result.ready, stream)


class CudaSegmentation(Segmentation):
    """A segmentation that stays on the GPU until its labels or probabilities are read.

    Read them before `RESULT_BUFFERS` more frames are segmented; they are copies. `counts` is the number of grid cells of
    each class, `settled` whether further steps would have changed nothing.
    """

    __slots__ = ("_fetch", "counts", "planes", "result", "settled")
    counts: list[int]
    result: FrameResult
    settled: bool
    planes: NDArray[np.float32]
    _fetch: Fetcher

    def __init__(
        self,
        result: FrameResult,
        view: Viewport,
        fetch: Fetcher,
        model: ConfidenceModel | None = None,
        parts: tuple[int, ...] = (),
    ) -> None:
        moved, steps, settled = read_state(result.state)
        *counts, confidence, inside = result.totals.tolist()
        self.view, self.confidence, self.steps, self.moved = view, confidence / max(inside, 1), steps, moved
        self.result, self.counts, self.settled = result, [int(count) for count in counts], settled
        self.instances, self.presence, self.model, self.colors, self.damage = None, None, model, None, None
        self.parts = parts
        self._reliability = self._calibrated = self._statistics = None
        self._fetch = fetch

    def __getattr__(self, name: str) -> Any:
        """Copy labels or probabilities (`planes`: see `FrameResult`) to the host when they are read for the first time."""
        match name:
            case "labels":
                found: Any = self._fetch(self.result.labels, self.result)
            case "planes":
                found = self._fetch(self.result.probabilities, self.result)
            case "probabilities":
                found = self.planes[: len(self.counts)]
            case "unmerged":
                found = self._unmerged() if self.parts else None
            case _:
                raise AttributeError(name)
        setattr(self, name, found)
        return found

    def _unmerged(self) -> Segmentation:
        union, parts = len(self.counts) - 1, np.array(self.parts, np.uint8)
        labels, probabilities, before = self.labels.copy(), self.planes[:union].copy(), self.planes[union + 1 :]
        unsure = labels == union
        labels[unsure] = parts[before[:, unsure].argmax(axis=0)]
        probabilities[parts] = before
        same = self.view, self.confidence, self.steps, self.moved
        return Segmentation(labels, probabilities, *same, model=self.model)


class Fetcher:
    """Copy results to the host on a separate stream."""

    def __init__(self, gpu: Gpu, stream: CudaStream) -> None:
        self._gpu, self._stream, self._done = gpu, stream, gpu.event()

    def __call__(self, buffer: Buffer, result: FrameResult) -> NDArray[Any]:
        """Wait for a result and return a copy of one of its buffers."""
        kind = np.uint8 if len(buffer.shape) == 2 else np.float32
        host = self._gpu.pinned(tuple(buffer.shape), kind)
        self._gpu.wait(self._stream, result.ready)
        self._gpu.copy(host, buffer, self._stream)
        self._gpu.record(self._done, self._stream)
        self._gpu.synchronize(self._done)
        return host
