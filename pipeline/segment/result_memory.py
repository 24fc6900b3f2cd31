"""Results that are used again, moved with the image: in noisy frames, and of regions that were segmented enlarged."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import RestorationSpec
from cliprl.pipeline.core.frame import FrameContext, Plane
from cliprl.pipeline.segment.motion import Flow, FlowEstimator, sampled
from cliprl.pipeline.segment.refinement import RefinementResult
from cliprl.pipeline.segment.zoom import LOOK_EVERY

# Pixels of a cell of the grid, each way, at which motion is measured, and the shortest side of an image in which it can be.
PIXELS, _SMALLEST = 2, 12


class ResultMemory:
    """Mixes the logits of a noisy frame with the last result, moved with the image, if that was of a noisy frame too.

    Noise differs from frame to frame, the scene hardly does. `spec` has the limit of noise, and the share of the last result
    (`memory`), which holds the results before it in the same way.
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
        gray, mixed = _gray(image, logits.shape), logits.copy()
        if self._last is not None and follows and self._last[0].shape == logits.shape and min(gray.shape) >= _SMALLEST:
            last, seen = self._last
            flow = self._flow.between(seen, gray)
            assert flow is not None  # of equal sizes, and without a limit that is a cut
            offsets = _cell_offsets(flow, logits.shape)
            mixed *= 1 - self._share
            mixed += self._share * np.stack([sampled(plane, offsets) for plane in last[0]])[None]
        self._last = mixed, gray
        return mixed


class ZoomMemory:
    """Puts the zoomed region of a frame, or the last one moved with the image, into the logits. Frames must come in order.

    last: the number, logits, weights and gray image of the frame that was looked at last, None if its region is not used again.
    """

    def __init__(self) -> None:
        self._flow = FlowEstimator()
        self.last: tuple[int, NDArray[np.float32], NDArray[np.float32], Plane] | None = None

    def __call__(self, context: FrameContext) -> NDArray[np.float32]:
        """Return the logits float32 (1, K, h, w) of a frame with the region in its place."""
        logits, index, zoomed = context.logits, context.frame.index, context.zoomed
        last, self.last = self.last, None
        if zoomed is not None:
            mixed, weight = logits.copy(), np.zeros(logits.shape[2:], np.float32)
            part = mixed[0, :, zoomed.rows, zoomed.columns]
            np.copyto(part, zoomed.logits, where=zoomed.cells)
            weight[zoomed.rows, zoomed.columns] = zoomed.cells
            self.last = index, mixed, weight, _gray(context.image[0], logits.shape)
            return mixed
        if last is None or context.zooms or not index - LOOK_EVERY < last[0] < index or last[1].shape != logits.shape:
            return logits
        flow = self._flow.between(last[3], _gray(context.image[0], logits.shape))
        if flow is None:
            return logits
        self.last = last
        offsets = _cell_offsets(flow, logits.shape)
        moved = np.stack([sampled(plane, offsets) for plane in last[1][0]])
        return np.where(sampled(last[2], offsets) > 0.5, moved, logits)


def _gray(image: NDArray[np.uint8], grid: tuple[int, ...]) -> Plane:
    """Return a network input uint8 (H, W, 3) in gray, with `PIXELS` pixels for each cell of a grid (1, K, h, w), each way."""
    small = cv2.resize(image, (PIXELS * grid[3], PIXELS * grid[2]), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.uint8)


def _cell_offsets(flow: Flow, grid: tuple[int, ...]) -> Flow:
    return np.asarray(cv2.resize(flow, (grid[3], grid[2]), interpolation=cv2.INTER_AREA) / PIXELS, np.float32)
