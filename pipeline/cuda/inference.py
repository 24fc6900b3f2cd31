"""Make the network input of a frame, encode, refine and classify it on the GPU as one captured graph.

The graph never waits for the host. It reads what changes from frame to frame from GPU memory (`FrameData`). State from frame to
frame (the refined logits, the thumbnail for cut detection) stays on the GPU; a step after the mask has settled is undone on the
GPU. There is one graph for each number of steps.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.cuda.gpu_api import Buffer, CaptureError, CudaGraph, CudaStream, Gpu, Network
from cliprl.pipeline.cuda.kernels.kernel_arguments import (
    Advance,
    Begin,
    Classify,
    CountLines,
    CutRows,
    JoinCells,
    MarkCells,
    MeasureRegions,
    Prepare,
    Recall,
    Regions,
    Total,
    class_bits,
)
from cliprl.pipeline.segment.decision import InstrumentRegions
from cliprl.pipeline.segment.refinement import FORGETTING, SETTLED, SMOOTHING
from cliprl.pipeline.segment.temporal_prior import CUT, THUMBNAIL_STRIDE

# The kernels' struct State.
_STATE = np.dtype([("moved", np.float32), ("steps", np.int32), ("settled", np.int32), ("unused", np.int32)])


# Number of latest frames whose needed steps are considered.
PRIOR_WINDOW = 8


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Sizes of a bundle's networks: input (height, width), grid (rows, columns), features per cell, classes.

    parts, part_share: what masks merge into one more class (see `Manifest`); no parts: nothing. regions: None for no rule.
    """

    height: int
    width: int
    rows: int
    columns: int
    features: int
    classes: int
    parts: tuple[int, ...] = ()
    part_share: float = 0.0
    regions: InstrumentRegions | None = None

    @property
    def mask_classes(self) -> int:
        """The number of classes of a mask."""
        return self.classes + bool(self.parts)

    @property
    def logits(self) -> tuple[int, int, int, int]:
        """The shape of logits."""
        return (1, self.classes, self.rows, self.columns)

    @property
    def cells(self) -> int:
        """The number of cells of the grid."""
        return self.rows * self.columns


def total_bytes(shape: NetworkShape) -> int:
    """Return the size of the totals: cells of each class, the sum of confidences, the cells inside the image."""
    return 4 * (shape.mask_classes + 2)


def number_bytes(shape: NetworkShape, steps: int) -> int:
    """Return the size of the states after 0 to `steps` steps and the totals behind them."""
    return (steps + 1) * _STATE.itemsize + total_bytes(shape)


class Inference:
    """One video stream's memory and graphs. Networks and compute stream are shared: see `cliprl.pipeline.cuda.scheduling`.

    frame: the address of the stream's `FrameData`. numbers: the states after each step and the totals (see `FrameResult`).
    scan: enqueues other work on each frame, which is captured as a graph too.
    """

    def __init__(
        self,
        gpu: Gpu,
        networks: tuple[Network, Network],
        shape: NetworkShape,
        texts: NDArray[np.float32],
        steps: int,
        stream: CudaStream,
        frame: int,
        scan: Callable[[CudaStream], None],
    ) -> None:
        self.shape, self.steps = shape, steps
        self._frame, self._scan = frame, scan
        self._gpu, self._stream = gpu, stream
        self._encoder, self._refiner = networks
        self.image = gpu.empty((1, shape.height, shape.width, 3), np.uint8)
        self._text = gpu.empty(texts.shape, np.float32)
        self._features = gpu.empty((1, shape.features, shape.rows, shape.columns), np.float32)
        self._base, self._logits, self._prior, self._refined = (gpu.empty(shape.logits, np.float32) for _ in range(4))
        self._moved = gpu.empty((), np.float32)
        self._thumbnail_size = (-(-shape.height // THUMBNAIL_STRIDE), -(-shape.width // THUMBNAIL_STRIDE))
        self._thumbnail = gpu.empty((*self._thumbnail_size, 3), np.uint8)
        self._sums = gpu.empty(self._thumbnail_size[:1], np.uint32)
        self._fresh, self._cut = (gpu.empty((1,), np.int32) for _ in range(2))
        self._confidence = gpu.empty((shape.rows, shape.columns), np.float32)
        self._roots, self._sizes = (gpu.empty((shape.rows, shape.columns), np.int32) for _ in range(2))
        self._lines = gpu.empty((shape.rows, shape.mask_classes + 2), np.float32)
        self.numbers = gpu.empty((number_bytes(shape, steps),), np.uint8)
        self._totals = gpu.address(self.numbers) + number_bytes(shape, steps) - total_bytes(shape)
        self._ones = self._pinned(np.ones(1, np.int32))
        self._send(self._text, texts)
        self._send(self.numbers, np.zeros(number_bytes(shape, steps), np.uint8))
        self.reset()
        self._graphs: list[CudaGraph] = []
        self.note = ""

    def warm_up(self) -> None:
        """Enqueue everything once, which does all lazy set-up. The frame's numbers and tables must have been sent."""
        self._scan(self._stream)
        self._work(self.steps, self._stream)

    def capture(self) -> None:
        """Capture the scan and a graph for each number of steps, after `warm_up`.

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
        works: list[Callable[[CudaStream], None]] = [
            self._scan,
            *(partial(self._work, count) for count in range(self.steps + 1)),
        ]
        return [self._gpu.capture(work) for work in works]

    def reset(self) -> None:
        """Forget all earlier frames."""
        self._gpu.copy(self._fresh, self._ones, self._stream)

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Hold it around `run`, outside a turn: without graphs another video stream may be capturing the same networks."""
        return nullcontext() if self._graphs else CAPTURE_LOCK

    def scan(self) -> None:
        """Enqueue the scan of the frame whose numbers were sent last."""
        if self._graphs:
            self._gpu.replay(self._graphs[0], self._stream)
        else:
            self._scan(self._stream)

    def run(self, steps: int) -> None:
        """Enqueue the frame whose numbers were sent last through the networks, with at most that number of steps."""
        if self._graphs:
            self._gpu.replay(self._graphs[1 + steps], self._stream)
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
        gpu, shape, (rows, columns) = self._gpu, self.shape, self._thumbnail_size
        thumb, sums, image = (gpu.address(buffer) for buffer in (self._thumbnail, self._sums, self.image))
        gpu.launch(Prepare(shape.width, shape.height, self._frame, image), stream)
        gpu.launch(CutRows(rows, 1, image, shape.width, columns, THUMBNAIL_STRIDE, 0, thumb, sums), stream)
        flags = (gpu.address(self._fresh), gpu.address(self._cut), self._frame)
        most = CUT * rows * columns * 3
        gpu.launch(Begin(1, 1, sums, rows, shape.mask_classes, most, 0, *flags), stream)

    def _recall(self, stream: CudaStream) -> None:
        gpu, shape = self._gpu, self.shape
        read = (gpu.address(self._base), gpu.address(self._logits), self._frame, gpu.address(self._cut))
        lines, prior = shape.classes * shape.rows, gpu.address(self._prior)
        gpu.launch(Recall(shape.columns, lines, *read, shape.rows, 0, prior), stream)
        gpu.copy(self._logits, self._base, stream)

    def _step(self, step: int, stream: CudaStream) -> None:
        gpu, shape = self._gpu, self.shape
        tensors = {"features": self._features, "logits": self._logits, "base": self._base, "prior": self._prior}
        tensors["text"] = self._text
        self._refiner.enqueue(tensors | {"refined": self._refined, "moved": self._moved}, stream)
        before = gpu.address(self.numbers) + step * _STATE.itemsize
        read = (gpu.address(self._refined), gpu.address(self._moved), before, before + _STATE.itemsize)
        logits = gpu.address(self._logits)
        gpu.launch(Advance(shape.classes * shape.cells, 1, *read, SETTLED, 0, logits), stream)

    def _label(self, stream: CudaStream) -> None:
        gpu, shape = self._gpu, self.shape
        confidence, lines = gpu.address(self._confidence), gpu.address(self._lines)
        logits, merged = gpu.address(self._logits), (shape.part_share, class_bits(shape.parts))
        regions, rule, grid = Regions(), shape.regions, (shape.columns, shape.rows)
        if rule is not None:
            scratch = gpu.address(self._roots), gpu.address(self._sizes)
            regions = Regions.of(rule.members, rule.others, rule.threshold, rule.share * shape.cells, *scratch)
            gpu.launch(MarkCells(*grid, logits, shape.classes, 0, self._frame, regions), stream)
            gpu.launch(JoinCells(*grid, regions.roots), stream)
            gpu.launch(MeasureRegions(*grid, regions.roots, regions.sizes), stream)
        gpu.launch(Classify(*grid, logits, shape.classes, *merged, self._frame, confidence, regions), stream)
        columns = shape.mask_classes + 2
        gpu.launch(CountLines(columns, shape.rows, self._frame, confidence, shape.columns, 0, lines), stream)
        gpu.launch(Total(columns, 1, lines, shape.rows, 0, self._totals), stream)

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
