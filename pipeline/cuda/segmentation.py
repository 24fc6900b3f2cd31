"""Results of a frame on the GPU, and the status numbers that are copied to the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.confidence import ConfidenceModel
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.cuda.gpu_api import Buffer, CudaStream, Event, Gpu
from cliprl.pipeline.cuda.inference import (
    STATE_BYTES,
    Inference,
    NetworkShape,
    grid_bytes,
    number_bytes,
    read_state,
    views_of_grids,
)

# Results kept at a time: one for each stage of a stream and each queue between stages, and some reserve.
RESULT_BUFFERS = 10


@dataclass(slots=True)
class FrameResult:
    """A frame's results on the GPU, copied from the memory of the graph, and the status numbers in pinned memory.

    `ready` completes when all are written, `free` when the overlay's stream has read them.
    """

    probabilities: Buffer
    labels: Buffer
    present: Buffer
    totals: NDArray[np.float32]
    state: NDArray[np.uint8]
    ready: Event
    free: Event
    grids: Buffer = None
    numbers: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, gpu: Gpu, shape: NetworkShape, steps: int) -> FrameResult:
        """Allocate the results of graphs with up to `steps` steps, laid out as `InferenceOutputs`."""
        grids = gpu.empty((grid_bytes(shape),), np.uint8)
        numbers = gpu.pinned((number_bytes(shape, steps),), np.uint8)
        end = len(numbers) - 4 * (shape.classes + 1)
        totals, state = numbers[end:].view(np.float32), numbers[:STATE_BYTES]
        return cls(*views_of_grids(gpu, shape, grids), totals, state, gpu.event(), gpu.event(), grids, numbers)


class ResultBuffers:
    """The results of the latest `RESULT_BUFFERS` frames."""

    def __init__(self, gpu: Gpu, shape: NetworkShape, steps: int) -> None:
        self._gpu, self._next = gpu, 0
        self._held = [FrameResult.of(gpu, shape, steps) for _ in range(RESULT_BUFFERS)]

    def keep(self, inference: Inference, steps: int, stream: CudaStream) -> FrameResult:
        """Enqueue a copy of the outputs of the graph with `steps` steps. Overwrites the oldest result."""
        gpu, outputs = self._gpu, inference.outputs
        result = self._held[self._next]
        self._next = (self._next + 1) % RESULT_BUFFERS
        gpu.wait(stream, result.free)
        assert result.numbers is not None
        result.state = result.numbers[steps * STATE_BYTES : (steps + 1) * STATE_BYTES]
        gpu.copy(result.grids, outputs.grids, stream)
        gpu.copy(result.numbers, outputs.numbers, stream)
        gpu.record(result.ready, stream)
        return result


class CudaSegmentation(Segmentation):
    """A segmentation that stays on the GPU until its labels or probabilities are read.

    Read them before `RESULT_BUFFERS` more frames are segmented; they are copies. `counts` is the number of grid cells of
    each class, `settled` whether further steps would have changed nothing.
    """

    __slots__ = ("_fetch", "counts", "result", "settled")
    counts: NDArray[np.intp]
    result: FrameResult
    settled: bool
    _fetch: Fetcher

    def __init__(
        self, result: FrameResult, view: Viewport, fetch: Fetcher, model: ConfidenceModel | None = None
    ) -> None:
        moved, steps, settled = read_state(result.state)
        totals, (rows, columns) = result.totals.astype(np.float64), result.labels.shape
        inside = int(inside_cells(view, int(rows), int(columns)).sum())
        self.view, self.confidence, self.steps, self.moved = view, float(totals[-1]) / max(inside, 1), steps, moved
        self.result, self.counts, self.settled = result, totals[:-1].astype(np.intp), settled
        self.instances, self.presence, self.model = None, None, model
        self._reliability = self._calibrated = None
        self._fetch = fetch

    def __getattr__(self, name: str) -> Any:
        """Copy labels or probabilities to the host when they are read for the first time."""
        if name not in ("labels", "probabilities"):
            raise AttributeError(name)
        setattr(self, name, self._fetch(getattr(self.result, name), self.result))
        return getattr(self, name)


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
