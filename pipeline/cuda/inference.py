"""Run encoder, refinement and classification of a frame on the GPU as one captured graph.

The graph never waits for the host. State from frame to frame (the refined logits, the thumbnail for cut detection) stays on
the GPU; a step after the mask has settled is undone on the GPU. There is one graph for each number of steps.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.cuda.gpu_api import Buffer, CaptureError, CudaGraph, CudaStream, Gpu, Network
from cliprl.pipeline.cuda.kernels.kernel_arguments import Advance, Begin, Classify, CountLines, CutRows, Recall, Total
from cliprl.pipeline.segment.refinement import CUT, THUMBNAIL_STRIDE
from cliprl.pipeline.segment.refinement_loop import FORGETTING, SETTLED, SMOOTHING

# The kernels' struct State.
_STATE = np.dtype([("moved", np.float32), ("steps", np.int32), ("settled", np.int32), ("unused", np.int32)])


# Number of latest frames whose needed steps are considered.
PRIOR_WINDOW = 8


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Sizes of a bundle's networks: input (height, width), grid (rows, columns), features per cell, classes."""

    height: int
    width: int
    rows: int
    columns: int
    features: int
    classes: int

    @property
    def logits(self) -> tuple[int, int, int, int]:
        """The shape of logits."""
        return (1, self.classes, self.rows, self.columns)

    @property
    def cells(self) -> int:
        """The number of cells of the grid."""
        return self.rows * self.columns


@dataclass(frozen=True, slots=True)
class InferenceOutputs:
    """Outputs of a graph, on the GPU.

    probabilities: float32 (K, h, w). labels: uint8 (h, w). present: uint8 (K,), whether a class occurs. totals: float32 (K + 1,),
    cells of each class and the sum of confidences. states: the State after each step. grids: the memory of the first three,
    numbers: that of totals and states, so that two copies keep everything.
    """

    probabilities: Buffer
    labels: Buffer
    present: Buffer
    totals: Buffer
    states: Buffer
    grids: Buffer
    numbers: Buffer

    @classmethod
    def of(cls, gpu: Gpu, shape: NetworkShape, steps: int) -> InferenceOutputs:
        """Allocate the outputs of graphs with up to `steps` steps."""
        grids = gpu.empty((grid_bytes(shape),), np.uint8)
        numbers = gpu.empty((number_bytes(shape, steps),), np.uint8)
        return cls(*views_of_grids(gpu, shape, grids), *views_of_numbers(gpu, shape, numbers), grids, numbers)


def grid_bytes(shape: NetworkShape) -> int:
    """Return the size of probabilities, labels and present, which lie in this order without gaps."""
    return (4 * shape.classes + 1) * shape.cells + shape.classes


def number_bytes(shape: NetworkShape, steps: int) -> int:
    """Return the size of the states after 0 to `steps` steps and the totals behind them."""
    return (steps + 1) * _STATE.itemsize + 4 * (shape.classes + 1)


def views_of_grids(gpu: Gpu, shape: NetworkShape, memory: Buffer) -> tuple[Buffer, Buffer, Buffer]:
    """Return probabilities, labels and present in their memory."""
    first, second = 4 * shape.classes * shape.cells, (4 * shape.classes + 1) * shape.cells
    scores, size = gpu.typed(gpu.slice(memory, 0, first), np.float32), shape.classes * shape.cells
    return (
        gpu.slice(scores, 0, size, (shape.classes, shape.rows, shape.columns)),
        gpu.slice(memory, first, second, (shape.rows, shape.columns)),
        gpu.slice(memory, second, second + shape.classes),
    )


def views_of_numbers(gpu: Gpu, shape: NetworkShape, memory: Buffer) -> tuple[Buffer, Buffer]:
    """Return totals and states in their memory."""
    end = len(memory) - 4 * (shape.classes + 1)
    return gpu.typed(gpu.slice(memory, end, len(memory)), np.float32), gpu.slice(memory, 0, end)


class Inference:
    """One video stream's memory and graphs. Networks and compute stream are shared: see `cliprl.pipeline.cuda.scheduling`."""

    def __init__(
        self,
        gpu: Gpu,
        networks: tuple[Network, Network],
        shape: NetworkShape,
        texts: NDArray[np.float32],
        steps: int,
        stream: CudaStream,
    ) -> None:
        self.shape, self.steps = shape, steps
        self._gpu, self._stream = gpu, stream
        self._encoder, self._refiner = networks
        self.image = gpu.empty((1, shape.height, shape.width, 3), np.uint8)
        self.spans = gpu.empty((shape.rows + 2, 2), np.int32)
        self.warp = gpu.empty((4,), np.float32)
        self._text = gpu.empty(texts.shape, np.float32)
        self._features = gpu.empty((1, shape.features, shape.rows, shape.columns), np.float32)
        self._base, self._logits, self._prior, self._refined = (gpu.empty(shape.logits, np.float32) for _ in range(4))
        self._moved = gpu.empty((), np.float32)
        self._thumbnailnail_size = (-(-shape.height // THUMBNAIL_STRIDE), -(-shape.width // THUMBNAIL_STRIDE))
        self._thumbnail = gpu.empty((*self._thumbnailnail_size, 3), np.uint8)
        self._sums = gpu.empty(self._thumbnailnail_size[:1], np.uint32)
        self._fresh, self._cut = (gpu.empty((1,), np.int32) for _ in range(2))
        self._confidence = gpu.empty((shape.rows, shape.columns), np.float32)
        self._lines = gpu.empty((shape.rows, shape.classes + 1), np.float32)
        self.outputs = InferenceOutputs.of(gpu, shape, steps)
        self._ones = self._pinned(np.ones(1, np.int32))
        self._send(self._text, texts)
        self._send(self.outputs.states, np.zeros((steps + 1) * _STATE.itemsize, np.uint8))
        self.reset()
        self._graphs: list[CudaGraph] = []
        self.note = ""

    def warm_up(self) -> None:
        """Enqueue everything once, which does all lazy set-up. The network input and the view's tables must have been written."""
        self._work(self.steps, self._stream)

    def capture(self) -> None:
        """Capture a graph for each number of steps, after `warm_up`, and forget all frames.

        Where that fails, `note` is the reason and frames are enqueued without graphs.
        """
        done = self._gpu.event()
        self._gpu.record(done, self._stream)
        self._gpu.synchronize(done)
        with CAPTURE_LOCK:
            try:
                self._graphs = self._captured()
            except CaptureError as error:
                self._graphs = []
                self.note = f"no CUDA graph ({error}): each frame's work is enqueued piece by piece, which takes longer"

    def _captured(self) -> list[CudaGraph]:
        if not all(network.capturable(self._stream) for network in (self._encoder, self._refiner)):
            raise CaptureError("the engine can't be captured")
        counts = range(self.steps + 1)
        return [self._gpu.capture(partial(self._work, count)) for count in counts]

    def reset(self) -> None:
        """Forget all earlier frames."""
        self._gpu.copy(self._fresh, self._ones, self._stream)

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Hold it around `run`, outside a turn: without graphs another video stream may be capturing the same networks."""
        return nullcontext() if self._graphs else CAPTURE_LOCK

    def run(self, steps: int) -> None:
        """Enqueue the next frame's network input through the networks, with at most that number of steps."""
        if self._graphs:
            self._gpu.replay(self._graphs[steps], self._stream)
        else:
            self._work(steps, self._stream)

    def _work(self, steps: int, stream: CudaStream) -> None:
        self._begin(stream)
        logits = {"features": self._features, "logits": self._base}
        self._encoder.enqueue({"image": self.image, "text": self._text} | logits, stream)
        self._recall(stream)
        for step in range(steps):
            self._step(step, stream)
        self._label(stream)

    def _begin(self, stream: CudaStream) -> None:
        gpu, shape, (rows, columns) = self._gpu, self.shape, self._thumbnailnail_size
        thumb, sums = gpu.address(self._thumbnail), gpu.address(self._sums)
        gpu.launch(
            CutRows(rows, 1, gpu.address(self.image), shape.width, columns, THUMBNAIL_STRIDE, 0, thumb, sums), stream
        )
        flags = (gpu.address(self._fresh), gpu.address(self._cut), gpu.address(self.outputs.present))
        most = CUT * rows * columns * 3
        gpu.launch(Begin(1, 1, sums, rows, shape.classes, most, 0, *flags), stream)

    def _recall(self, stream: CudaStream) -> None:
        gpu, shape = self._gpu, self.shape
        read = (gpu.address(buffer) for buffer in (self._base, self._logits, self.warp, self._cut))
        lines, prior = shape.classes * shape.rows, gpu.address(self._prior)
        gpu.launch(Recall(shape.columns, lines, *read, shape.rows, 0, prior), stream)
        gpu.copy(self._logits, self._base, stream)

    def _step(self, step: int, stream: CudaStream) -> None:
        gpu, shape = self._gpu, self.shape
        tensors = {"features": self._features, "logits": self._logits, "base": self._base, "prior": self._prior}
        tensors["text"] = self._text
        self._refiner.enqueue(tensors | {"refined": self._refined, "moved": self._moved}, stream)
        before = gpu.address(self.outputs.states) + step * _STATE.itemsize
        read = (gpu.address(self._refined), gpu.address(self._moved), before, before + _STATE.itemsize)
        logits = gpu.address(self._logits)
        gpu.launch(Advance(shape.classes * shape.cells, 1, *read, SETTLED, 0, logits), stream)

    def _label(self, stream: CudaStream) -> None:
        gpu, shape, outputs = self._gpu, self.shape, self.outputs
        grid = (shape.columns, shape.rows)
        written = (outputs.probabilities, self._confidence, outputs.labels, outputs.present)
        logits, tables = gpu.address(self._logits), gpu.address(self.spans)
        targets = [gpu.address(buffer) for buffer in written]
        gpu.launch(Classify(*grid, logits, shape.classes, 0, tables, *targets), stream)
        lines, columns = gpu.address(self._lines), shape.classes + 1
        gpu.launch(CountLines(columns, shape.rows, targets[2], targets[1], shape.columns, 0, lines), stream)
        gpu.launch(Total(columns, 1, lines, shape.rows, 0, gpu.address(outputs.totals)), stream)

    def _pinned(self, array: NDArray[Any]) -> NDArray[Any]:
        pinned = self._gpu.pinned(array.shape, array.dtype)
        pinned[...] = array
        return pinned

    def _send(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy to the GPU and wait."""
        done, pinned = self._gpu.event(), self._pinned(array)
        self._gpu.copy(buffer, pinned, self._stream)
        self._gpu.record(done, self._stream)
        self._gpu.synchronize(done)


def read_state(state: NDArray[np.uint8]) -> tuple[float, int, bool]:
    """Read a State: the share of cells that the last step changed, the steps taken, and whether the mask has settled."""
    fields = state.view(_STATE)[0]
    return float(fields["moved"]), int(fields["steps"]), bool(fields["settled"])


STATE_BYTES = _STATE.itemsize


class StepPlan:
    """Choose the number of refinement steps of the next frame, from 0 to `most`, without waiting for the GPU.

    Too many steps cost time and change nothing, since the GPU leaves a settled mask unchanged. After too few steps the frame
    returns unsettled, and the next frames get all steps again. `budget` is the seconds from a frame's start to its result, None
    for no limit. Thread-safe.
    """

    def __init__(self, most: int, budget: float | None = None) -> None:
        self._most, self._budget = most, budget
        self._needed: deque[int] = deque(maxlen=PRIOR_WINDOW)
        self._seconds = [0.0] * (most + 1)
        self._lock = threading.Lock()

    def next(self) -> int:
        """Return the steps of the next frame: the maximum that the latest frames needed, within the budget."""
        with self._lock:
            return self._within(max(self._needed, default=self._most))

    def _within(self, wanted: int) -> int:
        if self._budget is None:
            return wanted
        fitting = next((count for count in range(wanted, -1, -1) if self._seconds[count] <= self._budget), 0)
        for count in range(fitting + 1, self._most + 1):
            self._seconds[count] *= FORGETTING
        return fitting

    def learn(self, given: int, taken: int, settled: bool, seconds: float) -> None:
        """Record a finished frame: the steps it was given, the steps that changed it, and the seconds from its start."""
        with self._lock:
            self._needed.append(taken if settled else self._most)
            known = self._seconds[given]
            self._seconds[given] = known + (seconds - known) * SMOOTHING if known else seconds
