"""From a frame to what the network sees in it: view, encoder, refinement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, CompiledBundle, UsageError, ignore_message, load_engines, open_bundle
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.devices.device import Device, open_device
from cliprl.pipeline.segment.prompts import with_prompts
from cliprl.pipeline.segment.refinement import RefinementLoop
from cliprl.pipeline.segment.temporal_prior import TemporalPrior
from cliprl.pipeline.view.field_of_view import FieldOfViewDetector

# The parts of a segmenter's work by name, each a function of the frame and of the result of the part before.
Parts = Sequence[tuple[str, Callable[[Frame, Any], Any]]]
# How many frames may lie between two parts: what one makes is kept while it makes so many more.
BUFFERS = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """The network's picture of a frame, uint8 (1, H, W, 3), valid until `BUFFERS` more are prepared. cut: another shot begins."""

    view: Viewport
    picture: NDArray[np.uint8]
    cut: bool
    spent: float


@dataclass(frozen=True, slots=True)
class Encoded:
    """A frame's features (1, D, h, w) and base logits (1, K, h, w), valid until `BUFFERS` more frames are encoded."""

    view: Viewport
    features: NDArray[Any]
    base: NDArray[Any]
    cut: bool
    spent: float


class Segmenter:
    """`Frame -> Segmentation`, with the engines of one bundle and a memory of the last frame: one segmenter a stream.

    `steps` is the most refinement steps a frame gets (None: the bundle's default; 0: the base mask). `budget_ms` bounds the
    time spent on a frame: steps that would end after it are left out. `threads` 0 lets the networks use half the cores.
    `prompts` add or reword classes (see `with_prompts`): "grasper", "thread=suture, stitches #FF8800".
    `say` is told what takes time when the networks are not yet compiled for this machine; `engines` given, nothing is compiled.
    """

    works_on = "cpu"

    def __init__(
        self,
        bundle: Bundle | str | Path = "small",
        *,
        device: Device | str = "cpu",
        steps: int | None = None,
        budget_ms: float | None = None,
        precision: str = "auto",
        threads: int = 0,
        prompts: Sequence[str] = (),
        say: Callable[[str], None] = ignore_message,
        engines: CompiledBundle | None = None,
    ) -> None:
        self.bundle = with_prompts(bundle if isinstance(bundle, Bundle) else open_bundle(bundle), prompts)
        self.device = open_device(device) if isinstance(device, str) else device
        if self.device.name != self.works_on:
            name = self.device.name
            raise UsageError(f"device '{name}' has a segmenter of its own: open_device('{name}').segmenter(bundle)")
        manifest = self.bundle.manifest
        self.classes = manifest.classes
        self.steps = manifest.steps if steps is None else steps
        self.budget = None if budget_ms is None else budget_ms / 1000
        _check(self.steps, self.budget)
        engines = engines or load_engines(
            self.bundle, device=self.device.name, precision=precision, threads=threads, buffers=BUFFERS, say=say
        )
        self.precision, self.engine_name = engines.precision, engines.backend
        self._encoder, self._refiner = (
            engines.encoder,
            RefinementLoop(engines.refiner, self.steps, self.bundle.embeddings),
        )
        shape = (1, manifest.height, manifest.width, 3)
        self._pictures = cycle([np.zeros(shape, np.uint8) for _ in range(BUFFERS)])
        self.reset()
        self._warm_up()

    def _warm_up(self) -> None:
        """Run everything once, so that the first frame pays for no lazy set-up and the length of a step is known."""
        for _ in range(2):
            outputs = self._encoder.run({"image": next(self._pictures), "text": self.bundle.embeddings})
            self._refiner(outputs["features"], outputs["logits"], outputs["logits"])

    def __call__(self, frame: Frame) -> Segmentation:
        """Segment one frame. Frames must come in their order: the last one's result is the next one's prior."""
        found: Any = None
        for _, work in self.parts:
            found = work(frame, found)
        segmentation: Segmentation = found
        return segmentation

    @property
    def parts(self) -> Parts:
        """What is done to a frame, in order: name and function, of the frame and of what the part before made of it.

        Each may run on a thread of its own, all frames in the same order.
        """
        return ("prepare", self.prepare), ("encode", self.encode), ("refine", self.refine)

    def prepare(self, frame: Frame, _: None = None) -> Prepared:
        """Find the endoscope's picture and make the network's input."""
        with frame.stage("prepare"):
            view, picture = self._detector.view_of(frame), next(self._pictures)
            self.device.prepare(frame, view, picture[0])
            cut = self._memory.is_cut(picture[0])
        return Prepared(view, picture, cut, frame.durations["prepare"])

    def encode(self, frame: Frame, prepared: Prepared) -> Encoded:
        """Run the encoder."""
        with frame.stage("encode"):
            outputs = self._encoder.run({"image": prepared.picture, "text": self.bundle.embeddings})
        spent = prepared.spent + frame.durations["encode"]
        return Encoded(prepared.view, outputs["features"], outputs["logits"], prepared.cut, spent)

    def refine(self, frame: Frame, encoded: Encoded) -> Segmentation:
        """The second half: the refinement loop and the labels. May run on another thread than `encode`, in the same order."""
        start = time.monotonic()
        with frame.stage("refine"):
            prior = self._memory.recall(encoded.base, encoded.view, encoded.cut)
            deadline = None if self.budget is None else start + self.budget - encoded.spent
            refined = self._refiner(encoded.features, encoded.base, prior, deadline)
            self._memory.keep(refined.logits, encoded.view)
            return _segmentation(refined.logits[0], encoded.view, refined.steps, refined.moved)

    def reset(self) -> None:
        """Forget the last frame and where the endoscope's picture was, before another stream."""
        manifest = self.bundle.manifest
        self._detector = FieldOfViewDetector(manifest.height, manifest.width)
        self._memory = TemporalPrior()


def _check(steps: int, budget: float | None) -> None:
    if steps < 0:
        raise UsageError(
            f"steps {steps} is negative: give 0 for the base mask, or how many refinement steps a frame may take"
        )
    if budget is not None and not budget > 0:
        raise UsageError(
            f"budget {budget * 1000:g} ms is not positive: give the milliseconds a frame may take, or leave it out"
        )


def _segmentation(logits: NDArray[Any], view: Viewport, steps: int, moved: float) -> Segmentation:
    probabilities = np.exp(logits - logits.max(axis=0))
    probabilities /= probabilities.sum(axis=0)
    inside = inside_cells(view, *logits.shape[1:])
    labels = np.where(inside, logits.argmax(axis=0), 0).astype(np.uint8)
    confidence = float(probabilities.max(axis=0)[inside].mean()) if inside.any() else 0.0
    return Segmentation(labels, probabilities, view, confidence, steps, moved)
