"""Segments frames: field of view, network input, encoder, refinement."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, CompiledBundle, ignore_message, load_engines, open_bundle, size_of
from cliprl.engines.bundle.input_size import with_input_size
from cliprl.engines.selection.engine_variant import BUFFERS
from cliprl.pipeline.core.buffers import BufferPool, FrameRing, Policy
from cliprl.pipeline.core.color import ColorSpace, yuv_to_rgb_matrix
from cliprl.pipeline.core.confidence import ConfidenceModel
from cliprl.pipeline.core.frame import Frame, FrameContext, Plane, Stage
from cliprl.pipeline.core.interfaces import FrameOverlay, Preprocessor
from cliprl.pipeline.core.nv12 import check_frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.segment.decision import InstrumentRegions, merge_unsure, segmentation_of
from cliprl.pipeline.segment.presence_gate import PresenceGate
from cliprl.pipeline.segment.prompts import with_prompts
from cliprl.pipeline.segment.refinement import RefinementLoop, RefinementResult, check_time_limits
from cliprl.pipeline.segment.result_memory import ResultMemory, ZoomMemory
from cliprl.pipeline.segment.temporal_prior import InputRestoration, TemporalPrior
from cliprl.pipeline.segment.zoom import LOOK_EVERY, OTHER_IMAGE, RegionZoom
from cliprl.pipeline.view.field_of_view import FieldOfViewDetector


class CpuPreprocessor:
    """The `Preprocessor` of the CPU. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._scratch = BufferPool()

    def prepare(self, frame: Frame, view: Viewport, out: NDArray[np.uint8]) -> None:
        """Write the network input, RGB uint8 (network_height, network_width, 3), from the planes of the frame.

        The crop of the view is scaled down plane by plane without aliasing, then converted with the matrix and range of the
        frame. The padding and the area outside the endoscope's circle (text in the corners) are black. Chroma is assumed in the
        center of its four luma pixels; for chroma sited on the left the error is at most an eighth of a network pixel.
        """
        left, top, width, height = view.placed
        luma, chroma = _cut(frame, view)
        cb, cr = cv2.split(chroma, [self._scratch.array(name, chroma.shape[:2]) for name in ("Cb full", "Cr full")])
        named = {"Y": luma, "Cb": np.asarray(cb), "Cr": np.asarray(cr)}
        rgb = self._to_rgb([self._shrink(plane, (width, height), name) for name, plane in named.items()], frame.color)
        out.fill(0)
        placed = out[top : top + height, left : left + width]
        inside = inside_cells(view, *out.shape[:2]).view(np.uint8)
        cv2.copyTo(rgb, inside[top : top + height, left : left + width], placed)

    def _shrink(self, plane: NDArray[Any], size: tuple[int, int], name: str) -> NDArray[np.uint16]:
        """Scale to `size` (width, height), in 256ths: halve while the factor is 2 or more, then interpolate bilinearly.

        This has as little aliasing as an area average and is ten times as fast. The last two steps, and all after two halvings,
        work in 256ths, so that rounding errors do not add up.
        """
        (width, height), (full_height, full_width) = size, plane.shape
        halvings = int(math.log2(max(min(full_width / width, full_height / height), 1)))
        x, y = width * 2**halvings / full_width, height * 2**halvings / full_height
        for i in range(halvings):
            plane = self._halve(plane if i < min(halvings - 1, 2) else self._fine(plane, name), f"{name} {i}")
        plane = self._fine(plane, name)
        small: NDArray[np.uint16] = self._scratch.array(f"{name} small", (size[1], size[0]), np.uint16)
        by_factor = (round(plane.shape[1] * x), round(plane.shape[0] * y)) == size
        cv2.resize(plane, None if by_factor else size, small, fx=x, fy=y, interpolation=cv2.INTER_LINEAR)
        return small

    def _fine(self, plane: NDArray[Any], name: str) -> NDArray[np.uint16]:
        """Return a plane in 256ths; it may be so already."""
        if plane.dtype == np.uint16:
            return plane
        fine: NDArray[np.uint16] = self._scratch.array(f"{name} fine", plane.shape, np.uint16)
        np.multiply(plane, 256, out=fine, dtype=np.uint16)
        return fine

    def _halve(self, plane: NDArray[Any], name: str) -> NDArray[Any]:
        """Return means of 2x2, without a last odd line or column: by other factors OpenCV takes ten times as long."""
        height, width = (n // 2 for n in plane.shape)
        half = self._scratch.array(name, (height, width), plane.dtype)
        cv2.resize(plane[: 2 * height, : 2 * width], (width, height), half, interpolation=cv2.INTER_AREA)
        return half

    def _to_rgb(self, planes: list[NDArray[np.uint16]], color: ColorSpace) -> NDArray[np.uint8]:
        """Convert Y, Cb and Cr in 256ths to RGB uint8 (h, w, 3), rounded and clipped."""
        matrix, offset = yuv_to_rgb_matrix(color.matrix, color.full_range)
        shape = (*planes[0].shape, 3)
        yuv, fine = self._scratch.array("YCbCr", shape, np.uint16), self._scratch.array("RGB fine", shape, np.uint16)
        rgb: NDArray[np.uint8] = self._scratch.array("RGB", shape)
        cv2.merge(planes, yuv)
        cv2.transform(yuv, np.hstack([matrix, offset[:, None] * 256]), fine)
        return np.asarray(cv2.convertScaleAbs(fine, rgb, 1 / 256), np.uint8)


def _cut(frame: Frame, view: Viewport) -> tuple[Plane, Plane]:
    """Return the crop of the view as views of both planes. Crops start at even pixels."""
    left, top, width, height = view.crop
    luma = frame.luma[top : top + height, left : left + width]
    return luma, frame.chroma[top // 2 : (top + height + 1) // 2, left // 2 : (left + width + 1) // 2]


class Segmenter:
    """Maps `Frame` to `Segmentation` with the engines of one bundle and the refined logits of the previous frame as a prior.

    It serves one stream at a time, and none in a process that was forked (OpenVINO may hang there: multiprocessing's "spawn").
    `steps` is the largest number of refinement steps per frame (None: the bundle's default; 0: no
    refinement). `budget_ms` limits the time spent on a frame: steps that would end later are left out. `threads` 0 lets the
    networks use half of the cores. `prompts` add or reword classes (see `with_prompts`): "grasper", "thread=suture, stitches
    #FF8800"; a class that is added has a mask only in frames that show it (see `PresenceGate`). `input_size` (height, width) or
    "384x480": that of the networks (None: the bundle's). `preprocessor` makes the network
    input (None: on the CPU). `log` receives messages about steps that take time, such as compiling the networks for this machine;
    with `engines` given, nothing is compiled.

    With a bundle that has a `restoration`, the network input of damaged frames is restored, and noisy and hazy ones are
    refined, unless `steps` is 0. Successive noisy ones may share their results (`memory`). With one whose `regions` are `zoomed`,
    small regions of other frames are segmented again, unless `steps` is 0: see `RegionZoom`. Where nothing `restores` it (on the
    GPU), nothing is segmented again, and the default of a bundle with a `restoration` is no refinement.
    """

    device = "cpu"
    waits_for_device = False
    notes: Sequence[str] = ()
    restores = True
    _prepared: int

    def __init__(
        self,
        bundle: Bundle | str | Path = "small",
        *,
        steps: int | None = None,
        budget_ms: float | None = None,
        precision: str = "auto",
        threads: int = 0,
        prompts: Sequence[str] = (),
        input_size: tuple[int, int] | str | None = None,
        log: Callable[[str], None] = ignore_message,
        engines: CompiledBundle | None = None,
        preprocessor: Preprocessor | None = None,
    ) -> None:
        opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.bundle = with_prompts(with_input_size(opened, input_size), prompts)
        manifest = self.bundle.manifest
        self.classes, self._model = manifest.mask_classes, ConfidenceModel.of(self.bundle)
        self._parts, self._part_share = manifest.merged_parts, manifest.part_share or 0.0
        self.regions = InstrumentRegions.of(manifest)
        spec = manifest.restoration
        self.steps = (manifest.steps if self.restores or not spec else 0) if steps is None else steps
        self.budget = None if budget_ms is None else budget_ms / 1000
        check_time_limits(self.steps, self.budget)
        engines = engines or load_engines(
            self.bundle, device=self.device, precision=precision, threads=threads, log=log
        )
        self.precision, self.engine_name = engines.precision, engines.backend
        self._encoder, self._at_once = engines.encoder_for(self.bundle), engines.encoder.at_once
        self._refiner = RefinementLoop(
            engines.refiner, self.steps, self.bundle.embeddings, spec.least if spec and self.restores else 0.0
        )
        self._restoration = InputRestoration(spec, self.bundle.own_size) if spec and steps != 0 else None
        zooms = self.restores and steps != 0 and preprocessor is None
        self._zoom = RegionZoom.of(self.bundle, self._encoder) if zooms else None
        self._preprocessor = preprocessor or CpuPreprocessor()
        # The first of three stages may be four frames ahead of the last: see `WAITING` of the scheduler.
        self._images = cycle([np.zeros((1, *size_of(self.bundle), 3), np.uint8) for _ in range(BUFFERS + 1)])
        self._gate = PresenceGate(self.classes) if any(spec.kind == "prompted" for spec in self.classes) else None
        self.reset()
        self._warm_up()

    def _warm_up(self) -> None:
        """Run all networks twice where a budget needs the time of a step; otherwise the first frame pays for lazy set-up."""
        for _ in range(0 if self.budget is None else 2):
            outputs = self._encoder.run({"image": next(self._images), "text": self.bundle.embeddings})
            self._refiner(outputs["features"], outputs["logits"], outputs["logits"])

    def __call__(self, frame: Frame) -> Segmentation:
        """Segment one frame. Frames must come in order, because each result is the prior of the next frame."""
        check_frame(frame)
        context = FrameContext(frame)
        for stage in self.stages:
            stage.run(context)
        assert context.segmentation is not None
        return context.segmentation

    @property
    def stages(self) -> tuple[Stage[FrameContext], ...]:
        """The stages in order. Each may run on its own thread, "encode" on several; all receive the frames in the same order."""
        return Stage("prepare", self.prepare), Stage("encode", self.encode, self._at_once), Stage("refine", self.refine)

    def prepare(self, context: FrameContext) -> None:
        """Find the field of view and make the network input."""
        with context.stage("prepare"):
            context.view, context.image = self._detector.view_of(context.frame), next(self._images)
            self._preprocessor.prepare(context.frame, context.view, context.image[0])
            self.restore(context)
            context.is_cut = self._prior.is_cut(context.image[0])
            last, index = self._prepared, context.frame.index
            is_due = not last < index < (last // LOOK_EVERY + 1) * LOOK_EVERY or self._prior.change > OTHER_IMAGE
            context.zooms = self._zoom is not None and is_due and not context.damaged
            self._prepared = index

    def restore(self, context: FrameContext) -> None:
        """Restore the network input where it is damaged. A frame without noise or haze is not refined."""
        if self._restoration is not None:
            deadline = None if self.budget is None else time.monotonic() + self.budget / 2
            context.damaged = self._restoration(context.image[0], deadline)
            context.damage = self._restoration.found
            context.is_related = self._prior.is_related(context.image[0], compare=context.damaged)

    def encode(self, context: FrameContext) -> None:
        """Run the encoder: features and logits before refinement."""
        start, spent = time.monotonic(), context.frame.durations
        with context.stage("encode"):
            outputs = self._encoder.run({"image": context.image, "text": self.bundle.embeddings})
            context.features, context.logits = outputs["features"], outputs["logits"]
            if self._zoom is not None and context.zooms:
                deadline = None if self.budget is None else start + self.budget - spent["prepare"]
                context.zoomed = self._zoom(context, CpuPreprocessor(), deadline)

    def refine(self, context: FrameContext) -> None:
        """Run the refinement loop within the time that is left, and set the segmentation."""
        start, spent = time.monotonic(), context.frame.durations
        with context.stage("refine"):
            deadline = None if self.budget is None else start + self.budget - spent["prepare"] - spent["encode"]
            refined = RefinementResult(context.logits, 0, 0.0)
            if context.damaged:
                prior = self._prior.recall(context.logits, context.view, context.is_cut or not context.is_related)
                refined = self.memory.mixed(context, self._refiner(context.features, context.logits, prior, deadline))
            elif context.zoomed is not None or self._zoomed.last is not None:
                refined = RefinementResult(self._zoomed(context), 0, 0.0)
            # What a restored frame gives before refinement: from refined to refined, a wrong class would grow.
            self._prior.keep(context.logits if self._restoration else refined.logits, context.view)
            found = segmentation_of(refined.logits[0], context.view, refined.steps, refined.moved, self.regions)
            found.model, found.colors = self._model, cell_colors(context.image[0], found.labels.shape)
            found.damage = context.damage
            if self._gate is not None:
                self._gate(found)
            context.segmentation = merge_unsure(found, self._parts, self._part_share) if self._parts else found

    def reset(self) -> None:
        """Forget the previous frame and the field of view. A `Stream` does so when it begins."""
        self._detector = FieldOfViewDetector(*size_of(self.bundle))
        self._prior, self.memory = TemporalPrior(), ResultMemory(self.bundle.manifest.restoration)
        self._zoomed, self._prepared = ZoomMemory(), -1

    @property
    def prior(self) -> TemporalPrior:
        """The refined logits of the last frame, which the next frame has as its prior."""
        return self._prior

    def ring(self, slots: int, policy: Policy) -> FrameRing:
        """Create a ring of frame slots in host memory."""
        return FrameRing(slots, policy)

    def default_overlay(self) -> FrameOverlay | None:
        """Return None: frames of the CPU lie in host memory."""
        return None

    def settle(self) -> None:
        """Return at once: the CPU has no pending work."""


def cell_colors(image: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a copy of an image RGB uint8 (H, W, 3) at the middle of each cell of a grid (h, w)."""
    down, across = (size // cells for size, cells in zip(image.shape, shape, strict=False))
    return image[down // 2 :: down, across // 2 :: across][: shape[0], : shape[1]].copy()
