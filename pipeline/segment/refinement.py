"""The refinement loop and its temporal prior: a learned policy improves the mask step by step while there is time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Engine
from cliprl.pipeline.core.viewport import Viewport, grid_map

Array = NDArray[Any]
# Below this share of changed cells a further step is not worth its time.
SETTLED = 0.001
# Weight of the newest step in the running estimate of how long a step takes.
SMOOTHING = 0.2
# The estimate shrinks while no step is taken, so that one slow moment can't end refinement for good.
FORGETTING = 0.98


@dataclass(frozen=True, slots=True)
class RefinementResult:
    """Refined logits float32 (1, K, h, w), the steps taken to get there, and the share of cells that the last one changed."""

    logits: Array
    steps: int
    moved: float


class RefinementLoop:
    """Runs the policy at most `steps` times, on classes whose text embeddings are `text` float32 (K, E).

    It is anytime: every step's result is a valid mask.

    It stops early when a step leaves nearly every cell alone, or when the next step would end after the deadline.
    """

    def __init__(self, engine: Engine, steps: int, text: Array) -> None:
        self.engine, self.steps, self.text = engine, steps, text
        self._step_seconds = 0.0
        self._logits = np.empty(0, np.float32)

    def __call__(self, features: Array, base: Array, prior: Array, deadline: float | None = None) -> RefinementResult:
        """Refine `base` (1, K, h, w). `prior` is the previous frame's result; `deadline` a `time.monotonic()` in seconds.

        The result's logits are overwritten by the next call.
        """
        if self._logits.shape != base.shape:
            self._logits = np.empty(base.shape, np.float32)
        np.copyto(self._logits, base)
        taken, moved = 0, 0.0
        while taken < self.steps and self._in_time(deadline):
            moved = self._step(features, base, prior)
            taken += 1
            if moved < SETTLED:
                break
        return RefinementResult(self._logits, taken, moved)

    def _in_time(self, deadline: float | None) -> bool:
        if deadline is None or time.monotonic() + self._step_seconds <= deadline:
            return True
        self._step_seconds *= FORGETTING
        return False

    def _step(self, features: Array, base: Array, prior: Array) -> float:
        start = time.monotonic()
        inputs = {"features": features, "logits": self._logits, "base": base, "prior": prior, "text": self.text}
        outputs = self.engine.run(inputs)
        np.copyto(self._logits, outputs["refined"])
        seconds = time.monotonic() - start
        self._step_seconds += (seconds - self._step_seconds) * (SMOOTHING if self._step_seconds else 1.0)
        return float(outputs["moved"])


# Mean absolute difference (0..255) of two network inputs above which the second belongs to another shot.
CUT = 32.0
# Every n-th pixel is enough to tell a cut.
THUMBNAIL_STRIDE = 4


class TemporalPrior:
    """The refined logits of the last frame, as the temporal prior of the next.

    Left out at a cut and when the frame size changes; warped when the view (the endoscope's circle) has moved.
    """

    def __init__(self) -> None:
        self._logits: NDArray[np.float32] | None = None
        self._view: Viewport | None = None
        self._thumb: NDArray[np.uint8] | None = None

    def is_cut(self, image: NDArray[np.uint8]) -> bool:
        """Whether `image`, uint8 (H, W, 3), starts another shot than the last one given."""
        thumb = image[::THUMBNAIL_STRIDE, ::THUMBNAIL_STRIDE].copy()
        previous, self._thumb = self._thumb, thumb
        return previous is not None and is_cut(previous, thumb, CUT)

    def recall(self, base: NDArray[Any], view: Viewport, cut: bool) -> NDArray[Any]:
        """The prior for a frame seen through `view`: float32 like `base` (1, K, h, w); `base` itself where there is none."""
        if self._logits is None or self._view is None or cut or self._logits.shape != base.shape:
            return base
        if (view.frame_height, view.frame_width) != (self._view.frame_height, self._view.frame_width):
            return base
        if (view.crop, view.placed) == (self._view.crop, self._view.placed):
            return self._logits
        return _warp(self._logits, self._view, view)

    def keep(self, logits: NDArray[Any], view: Viewport) -> None:
        """Remember a frame's refined logits (1, K, h, w); they are copied."""
        if self._logits is None or self._logits.shape != logits.shape:
            self._logits = np.empty(logits.shape, np.float32)
        np.copyto(self._logits, logits)
        self._view = view


def is_cut(before: NDArray[np.uint8], after: NDArray[np.uint8], threshold: float) -> bool:
    """Whether two images of one shape belong to different shots: their mean absolute difference is above `threshold`."""
    return float(cv2.absdiff(before, after).mean()) > threshold


def _warp(logits: NDArray[np.float32], old: Viewport, new: Viewport) -> NDArray[np.float32]:
    """Move a grid of logits from one view to another; cells without a value are filled from the edge."""
    height, width = logits.shape[2:]
    scale, shift = grid_map(old, new, (height, width))
    matrix = np.column_stack([np.diag(scale), shift])
    moved = [
        cv2.warpAffine(plane, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for plane in logits[0]
    ]
    return np.stack(moved)[None].astype(np.float32, copy=False)
