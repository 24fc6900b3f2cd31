"""The last result as a share of that of a noisy frame: noise differs from frame to frame, the scene hardly does."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import RestorationSpec
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.segment.motion import FlowEstimator, sampled
from cliprl.pipeline.segment.refinement import RefinementResult

# Pixels of a cell of the grid, each way, at which motion is measured, and the shortest side of an image in which it can be.
PIXELS, _SMALLEST = 2, 12


class ResultMemory:
    """Mixes the logits of a noisy frame with the last result, moved with the image, if that was of a noisy frame too.

    `spec` has the limit of noise, and the share of the last result (`memory`), which holds the results before it in the same way.
    """

    def __init__(self, spec: RestorationSpec | None) -> None:
        self._noise, self._share = (spec.noise, spec.memory) if spec else (1.0, 0.0)
        self._flow = FlowEstimator(preset=cv2.DISOPTICAL_FLOW_PRESET_FAST, cut=np.inf)
        self._last: tuple[NDArray[np.float32], NDArray[np.uint8]] | None = None
        self.clear()

    def clear(self) -> None:
        """Forget the last result: the next frame does not follow it."""
        self._number = -2

    def mixed(self, context: FrameContext, refined: RefinementResult) -> RefinementResult:
        """Return the result of a frame, with its share of that of the frame before where both are noisy."""
        damage, before = context.damage, self._number
        if not self._share or damage is None or damage.noise <= self._noise * damage.mean:
            return refined
        self._number = context.frame.index
        follows = self._number == before + 1 and context.is_related and not context.is_cut
        return replace(refined, logits=self.mix(refined.logits, context.image[0], follows))

    def mix(self, logits: NDArray[np.float32], image: NDArray[np.uint8], follows: bool) -> NDArray[np.float32]:
        """Return the result float32 (1, K, h, w) of a noisy frame with the network input `image`, uint8 (H, W, 3).

        It is `logits` unless the frame `follows` the one that was mixed last, in the same scene.
        """
        height, width = logits.shape[2:]
        small = cv2.resize(image, (PIXELS * width, PIXELS * height), interpolation=cv2.INTER_AREA)
        gray = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)
        mixed = logits.copy()
        if self._last is not None and follows and self._last[0].shape == logits.shape and min(gray.shape) >= _SMALLEST:
            last, seen = self._last
            flow = self._flow.between(seen, gray)
            assert flow is not None  # of equal sizes, and without a limit that is a cut
            offsets = np.asarray(cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) / PIXELS, np.float32)
            mixed *= 1 - self._share
            mixed += self._share * np.stack([sampled(plane, offsets) for plane in last[0]])[None]
        self._last = mixed, gray
        return mixed
