"""What the GPU made of a frame, and what of it the host is told at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.cuda.gpu_api import Buffer, Event, Gpu, Stream
from cliprl.pipeline.cuda.inference import STATE_BYTES, Inference, Shape, read_state

# Frames whose results are kept at a time: one at each stage of a stream, one between each two, and some room.
RESULTS = 10


@dataclass(slots=True)
class FrameResult:
    """A frame's results on the GPU, copied there from the graph's own memory, and the status numbers in pinned memory.

    `ready` happens when all is there; `free` when the output stream has read its part.
    """

    probabilities: Buffer
    labels: Buffer
    present: Buffer
    totals: NDArray[np.float32]
    state: NDArray[np.uint8]
    ready: Event
    free: Event


class ResultBuffers:
    """A frame's result for each of the latest `RESULTS` frames."""

    def __init__(self, gpu: Gpu, shape: Shape) -> None:
        self._gpu, self._next = gpu, 0
        self._held = [
            FrameResult(
                gpu.empty((shape.classes, shape.rows, shape.columns), np.float32),
                gpu.empty((shape.rows, shape.columns), np.uint8),
                gpu.empty((shape.classes,), np.uint8),
                gpu.pinned((shape.classes + 1,), np.float32),
                gpu.pinned((STATE_BYTES,), np.uint8),
                gpu.event(),
                gpu.event(),
            )
            for _ in range(RESULTS)
        ]

    def keep(self, inference: Inference, steps: int, stream: Stream) -> FrameResult:
        """Copy what the graph with so many steps leaves, as the stream's next work. Overwrites the oldest result."""
        gpu, outcome = self._gpu, inference.outcome
        result = self._held[self._next]
        self._next = (self._next + 1) % RESULTS
        gpu.wait(stream, result.free)
        for target, source in (
            (result.probabilities, outcome.probabilities),
            (result.labels, outcome.labels),
            (result.present, outcome.present),
            (result.totals, outcome.totals),
            (result.state, inference.state(steps)),
        ):
            gpu.copy(target, source, stream)
        gpu.record(result.ready, stream)
        return result


class CudaSegmentation(Segmentation):
    """A segmentation that stays on the GPU until somebody asks for its labels or probabilities.

    They must be asked for before `RESULTS` more frames are segmented, and are then the caller's own. `counts` is the number of
    the grid's cells of each class, `settled` whether further steps would have changed nothing.
    """

    __slots__ = ("_fetch", "counts", "result", "settled")
    counts: NDArray[np.intp]
    result: FrameResult
    settled: bool
    _fetch: Fetcher

    def __init__(self, result: FrameResult, view: Viewport, fetch: Fetcher) -> None:
        moved, steps, settled = read_state(result.state)
        totals, (rows, columns) = result.totals.astype(np.float64), result.labels.shape
        inside = int(inside_cells(view, int(rows), int(columns)).sum())
        self.view, self.confidence, self.steps, self.moved = view, float(totals[-1]) / max(inside, 1), steps, moved
        self.result, self.counts, self.settled = result, totals[:-1].astype(np.intp), settled
        self._fetch = fetch

    def __getattr__(self, name: str) -> Any:
        """Copy labels or probabilities to the host when they are read for the first time."""
        if name not in ("labels", "probabilities"):
            raise AttributeError(name)
        setattr(self, name, self._fetch(getattr(self.result, name), self.result))
        return getattr(self, name)


class Fetcher:
    """Brings results to the host, on a stream of its own, for those who ask."""

    def __init__(self, gpu: Gpu, stream: Stream) -> None:
        self._gpu, self._stream, self._done = gpu, stream, gpu.event()

    def __call__(self, buffer: Buffer, result: FrameResult) -> NDArray[Any]:
        """A copy of one of a result's buffers, once it is there."""
        kind = np.uint8 if len(buffer.shape) == 2 else np.float32
        host = self._gpu.pinned(tuple(buffer.shape), kind)
        self._gpu.wait(self._stream, result.ready)
        self._gpu.copy(host, buffer, self._stream)
        self._gpu.record(self._done, self._stream)
        self._gpu.synchronize(self._done)
        return host
