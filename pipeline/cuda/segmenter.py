"""The segmenter of the `cuda` device: the host enqueues work and reads status numbers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, FrameContext, Stage
from cliprl.pipeline.core.interfaces import FrameOverlay
from cliprl.pipeline.core.viewport import Viewport, full_viewport
from cliprl.pipeline.cuda.context import GpuContext
from cliprl.pipeline.cuda.geometry import filters, inside_spans, prepare_arguments, warp_of
from cliprl.pipeline.cuda.inference import Inference, NetworkShape, StepPlan
from cliprl.pipeline.cuda.kernels.kernel_arguments import Prepare
from cliprl.pipeline.cuda.overlay import CudaOverlay
from cliprl.pipeline.cuda.scheduling import InFlight
from cliprl.pipeline.cuda.segmentation import CudaSegmentation, Fetcher, FrameResult, ResultBuffers
from cliprl.pipeline.cuda.upload import UploadBuffers
from cliprl.pipeline.cuda.view_tracker import ViewTracker
from cliprl.pipeline.overlay.style import Style
from cliprl.pipeline.overlay.upsample import grid_spans
from cliprl.pipeline.segment.segmenter import Segmenter

NO_PRESENCE = (
    "classes that are named at run time are drawn in every frame: whether they are there is tested on the CPU only"
)


@dataclass(frozen=True, slots=True)
class PendingFrame:
    """An enqueued frame: where its result will be, its number of steps, and when it was enqueued."""

    result: FrameResult
    steps: int
    start: float


class CudaSegmenter(Segmenter):
    """A `Segmenter` on the GPU, for one video stream. `encode` enqueues all work on a frame, `refine` waits for its end.

    The view of a frame is that of the frame before it, where that frame's is not there yet; the number of steps follows the
    frames before. No input is restored here: with a bundle that refines damaged frames only, `steps` is 0 by default, and
    another number is for every frame. Otherwise it does what the CPU's does, in the same order.
    """

    device = "cuda"
    waits_for_device = True
    notes: Sequence[str] = ()
    restores = False

    def __init__(self, bundle: Bundle | str | Path, *, device: GpuContext, **settings: Any) -> None:
        self._cuda = device
        super().__init__(bundle, **settings)

    def _warm_up(self) -> None:
        """Allocate, run once and capture. Other video streams wait for the turn of that one run only."""
        with CAPTURE_LOCK:
            self._allocate()
            with self._cuda.turns.take():
                self._send_view(full_viewport(*self._size, *self._size))
                self._inference.warm_up()
            self._inference.capture()
        if self._gate is not None:
            self._cuda.notes = (*self._cuda.notes, NO_PRESENCE)
        if self._inference.note:
            self._cuda.notes = (*self._cuda.notes, self._inference.note)
        self.reset()

    def _allocate(self) -> None:
        context, shape = self._cuda, self._shape()
        networks = context.network(self._encoder), context.network(self._refiner.engine)
        texts = np.ascontiguousarray(self.bundle.embeddings, np.float32)
        self._inference = Inference(context.gpu, networks, shape, texts, self.steps, context.compute)
        self._uploads, self._results = (
            UploadBuffers(context.gpu, context.compute),
            ResultBuffers(context.gpu, shape, self.steps),
        )
        self._fetch, self._in_flight = Fetcher(context.gpu, context.stream()), InFlight(context.gpu)
        self._view_tracker = ViewTracker(context.gpu, self._detector, context.stream())
        self._last_view: Viewport | None = None
        self._prepared: tuple[ColorSpace, Prepare] | None = None
        self._size = shape.height, shape.width

    def _shape(self) -> NetworkShape:
        manifest = self.bundle.manifest
        grid = (manifest.height // manifest.stride, manifest.width // manifest.stride)
        features = self._encoder.outputs["features"].shape[1]
        return NetworkShape(manifest.height, manifest.width, *grid, features, len(self.bundle.embeddings))

    def reset(self) -> None:
        """Forget the last frame and its field of view, before another stream."""
        super().reset()
        self._plan = StepPlan(self.steps, self.budget)
        if hasattr(self, "_inference"):
            self._view_tracker.reset(self._detector)
            self._last_view = None
            self._in_flight.clear()
            with self._cuda.turns.take():
                self._inference.reset()
            self._cuda.settle()  # a segmenter that is dropped now frees the memory that this writes

    @property
    def stages(self) -> tuple[Stage[FrameContext], ...]:
        """Two stages: "encode" enqueues all work on the GPU, "refine" waits for its end."""
        return Stage("encode", self.encode), Stage("refine", self.refine)

    def encode(self, context: FrameContext) -> None:
        """Enqueue the whole work on a frame: network input, both networks, labels. Returns at once."""
        start, device, frame = time.monotonic(), self._cuda, context.frame
        with context.stage("prepare"):
            self._in_flight.admit()
            view = context.view = self._view_tracker.view_of(frame, device.frames)
        with context.stage("encode"), self._inference.lock, device.turns.take():
            self._prepare(frame, view)
            steps = self._plan.next()
            self._inference.run(steps)
            result = self._results.keep(self._inference, steps, device.compute)
            self._in_flight.given(result.ready)
        context.device_state = PendingFrame(result, steps, start)

    def _prepare(self, frame: Frame, view: Viewport) -> None:
        """Write the network input from the frame's planes on the GPU."""
        device, gpu = self._cuda, self._cuda.gpu
        if view != self._last_view:
            self._send_view(view)
        elif self._moving:
            self._send_warp(view, view)
        slot = device.frames.enter(frame, device.compute)
        planes = device.planes(slot)
        if self._prepared is None or self._prepared[0] != frame.color:
            tables = [self._uploads.address(name) for name in _table_names()]
            image = gpu.address(self._inference.image)
            self._prepared = frame.color, prepare_arguments(view, frame.color, planes, tables, image)
        arguments = self._prepared[1]
        (arguments.luma, _), (arguments.chroma, _) = planes
        gpu.launch(arguments, device.compute)
        device.frames.leave(frame, device.compute)

    def _send_view(self, view: Viewport) -> None:
        """Upload the tables of a new view."""
        shape = self._inference.shape
        inside = inside_spans(view, shape.height, shape.width)
        tables = [*(array for taps in filters(view) for array in taps), inside]
        for name, table in zip(_table_names(), tables, strict=True):
            self._uploads.send(name, table)
        self._uploads.send_to(self._inference.spans, _grid_table(view, (shape.rows, shape.columns)))
        self._send_warp(self._last_view or view, view)
        self._last_view, self._prepared = view, None

    def _send_warp(self, old: Viewport, new: Viewport) -> None:
        """Upload the warp from the last frame's grid. A change of the frame's size resets the temporal prior."""
        grid = (self._inference.shape.rows, self._inference.shape.columns)
        self._moving = old != new
        if (old.frame_height, old.frame_width) != (new.frame_height, new.frame_width):
            self._inference.reset()
        self._uploads.send_to(self._inference.warp, warp_of(old, new, grid))

    def refine(self, context: FrameContext) -> None:
        """Wait for the status numbers of an enqueued frame. Its masks stay on the GPU until they are read."""
        pending: PendingFrame = context.device_state
        with context.stage("refine"):
            self._cuda.gpu.synchronize(pending.result.ready)
            self._in_flight.finished(pending.result.ready)
            found = CudaSegmentation(pending.result, context.view, self._fetch, self._model)
            spent = time.monotonic() - pending.start
            self._plan.learn(pending.steps, found.steps, found.settled, spent)
        context.segmentation = found

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """Create the device's ring of frame slots in GPU memory."""
        return self._cuda.ring(slots, policy)

    def default_overlay(self) -> FrameOverlay | None:
        """Return an overlay that draws nothing: it copies the frames that were decoded on the GPU to the host."""
        return CudaOverlay(self.classes, Style(opacity=0), context=self._cuda)

    def settle(self) -> None:
        """Wait for all pending work of this video stream."""
        self._cuda.settle()


def _table_names() -> tuple[str, ...]:
    axes = ("luma x", "luma y", "chroma x", "chroma y")
    return (*(f"{axis} {part}" for axis in axes for part in ("first", "weight")), "inside")


def _grid_table(view: Viewport, grid: tuple[int, int]) -> NDArray[np.int32]:
    """Return the spans of the grid inside the field of view and the cells they touch, for `classify`: int32 (rows + 2, 2)."""
    x, y = grid_spans(view, grid, view.frame_height, view.frame_width)
    touched = np.array([[x.cells.start, y.cells.start], [x.cells.stop, y.cells.stop]], np.int32)
    return np.concatenate([inside_spans(view, *grid), touched])
