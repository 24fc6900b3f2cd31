"""The segmenter of the `cuda` device: the host enqueues work and reads status numbers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines import Bundle
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.buffers import FrameRing, Policy
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, FrameContext, Stage
from cliprl.pipeline.core.interfaces import FrameOverlay
from cliprl.pipeline.core.viewport import Viewport, full_viewport
from cliprl.pipeline.cuda.context import GpuContext
from cliprl.pipeline.cuda.geometry import IDENTITY, set_color, set_planes, set_view, warp_of
from cliprl.pipeline.cuda.inference import Inference, NetworkShape, StepPlan
from cliprl.pipeline.cuda.kernels.kernel_arguments import Warp
from cliprl.pipeline.cuda.overlay import CudaOverlay
from cliprl.pipeline.cuda.scheduling import InFlight
from cliprl.pipeline.cuda.segmentation import CudaSegmentation, Fetcher, FrameResult, ResultBuffers
from cliprl.pipeline.cuda.upload import FrameUpload
from cliprl.pipeline.cuda.view_tracker import ViewTracker
from cliprl.pipeline.overlay.style import Style
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
                self._send_blank()
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
        gpu, self._size = context.gpu, (shape.height, shape.width)
        self._upload = FrameUpload(gpu, self._size)
        self._pinned = self._upload.pinned()
        self._view_tracker = ViewTracker(gpu, self._detector, self._upload.address)
        where = (context.compute, self._upload.address, self._view_tracker.scan)
        self._inference = Inference(gpu, networks, shape, texts, self.steps, *where)
        self._results = ResultBuffers(gpu, shape, self.steps, self._upload)
        self._fetch, self._in_flight = Fetcher(gpu, context.stream()), InFlight(gpu)
        self._forget()

    def _forget(self) -> None:
        """Forget the view and the form of the last frame."""
        self._last_view: Viewport | None = None
        self._form: tuple[int, int, ColorSpace] | None = None
        self._upload.data.warp, self._moving = Warp(*IDENTITY), False

    def _shape(self) -> NetworkShape:
        manifest = self.bundle.manifest
        grid = (manifest.height // manifest.stride, manifest.width // manifest.stride)
        features = self._encoder.outputs["features"].shape[1]
        sizes = (manifest.height, manifest.width, *grid, features, len(self.bundle.embeddings))
        return NetworkShape(*sizes, self._parts, self._part_share, self.regions)

    def reset(self) -> None:
        """Forget the last frame and its field of view, before another stream."""
        super().reset()
        self._plan = StepPlan(self.steps, self.budget)
        if hasattr(self, "_inference"):
            self._view_tracker.reset(self._detector)
            self._forget()
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
        start, frame = time.monotonic(), context.frame
        with context.stage("prepare"):
            self._in_flight.admit()
            scanned = self._view_tracker.resize(frame.height, frame.width) and self._scan_first(frame)
            view = context.view = self._view_tracker.view(wait=scanned)
        with context.stage("encode"), self._inference.lock, self._cuda.turns.take():
            steps = self._plan.next()
            result = self._enqueue(frame, view, steps, scan=not scanned)
            self._in_flight.given(result.ready)
        context.device_state = PendingFrame(result, steps, start)

    def _scan_first(self, frame: Frame) -> bool:
        """Scan the first frame of a size before its view is known; return whether it is large enough. The caller waits."""
        device, tracker = self._cuda, self._view_tracker
        if not tracker.wants_scan:
            return False
        with self._inference.lock, device.turns.take():
            self._write_frame(frame)
            self._upload.send(self._pinned, device.compute)
            self._inference.scan()
            device.frames.leave(frame, device.compute, tracker.scanned(device.compute))
        return True

    def _enqueue(self, frame: Frame, view: Viewport, steps: int, *, scan: bool) -> FrameResult:
        """Enqueue the whole work on a frame; return where its result will be."""
        device, tracker, data = self._cuda, self._view_tracker, self._upload.data
        self._write_frame(frame)
        self._write_view(view)
        result = self._results.take(data, device.compute)
        self._upload.send(result.upload, device.compute)
        if scan and tracker.wants_scan:
            self._inference.scan()
            tracker.scanned(device.compute)
        self._inference.run(steps)
        self._results.keep(result, self._inference.numbers, steps, device.compute)
        device.frames.leave(frame, device.compute, result.ready)
        return result

    def _write_frame(self, frame: Frame) -> None:
        """Enter a frame's slot, and write where the frame lies, its colors and its strips."""
        data, layout = self._upload.data, self._view_tracker.layout
        set_planes(data, self._cuda.frames.enter(frame, self._cuda.compute).planes)
        form = (frame.height, frame.width, frame.color)
        if self._form != form:
            self._form = form
            set_color(data, frame.color)
            if layout is not None:
                layout.write(data, full_range=frame.color.full_range)

    def _write_view(self, view: Viewport) -> None:
        """Write a view, and the warp from the grid of the last frame. A change of the frame's size resets the temporal prior."""
        last, grid, data = (
            self._last_view,
            (self._inference.shape.rows, self._inference.shape.columns),
            self._upload.data,
        )
        if view == last:
            if self._moving:
                data.warp, self._moving = Warp(*IDENTITY), False
            return
        set_view(data, view, grid)
        self._upload.set_tables(view)
        old = last or view
        if (old.frame_height, old.frame_width) != (view.frame_height, view.frame_width):
            self._inference.reset()
        data.warp, self._moving, self._last_view = Warp(*warp_of(old, view, grid)), True, view

    def _send_blank(self) -> None:
        """Send a frame of the network's size, for the run before all frames."""
        gpu, data, (height, width) = self._cuda.gpu, self._upload.data, self._size
        self._blank = gpu.empty((height * width * 3 // 2,), np.uint8)
        luma = gpu.address(self._blank)
        set_planes(data, ((luma, width), (luma + height * width, width)))
        set_color(data, ColorSpace())
        self._write_view(full_viewport(*self._size, *self._size))
        self._upload.send(self._results.take(data, self._cuda.compute).upload, self._cuda.compute)

    def refine(self, context: FrameContext) -> None:
        """Wait for the status numbers of an enqueued frame. Its masks stay on the GPU until they are read."""
        pending: PendingFrame = context.device_state
        with context.stage("refine"):
            self._cuda.gpu.synchronize(pending.result.ready)
            self._in_flight.finished(pending.result.ready)
            found = CudaSegmentation(pending.result, context.view, self._fetch, self._model, self._parts)
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
