"""The way of a corrected segmentation onto the next frame: it moves along with the image."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.segment.refinement import TemporalPrior, is_cut
from cliprl.pipeline.tracking.optical_flow import flow_on_grid, sampled

# Width of the copies that motion is measured on, and the standard deviation of their blur, which takes out noise, in pixels.
_WIDTH, _BLUR = 320, 3.0
# Mean absolute difference of the motion-compensated copies above which there is a cut. Smoke makes large ones too.
_CUT = 40.0
# Weight of the carried logits against the network's own for the next frame.
CARRIED = 0.75


def carried_logits(
    corrected: NDArray[np.float32],
    old: tuple[Frame, Viewport],
    own: NDArray[np.float32],
    new: tuple[Frame, Viewport],
) -> NDArray[np.float32]:
    """Return the logits float32 (K, h, w) of a frame that follows a corrected one.

    `corrected` are those of the frame before, moved by optical flow; they are mixed with the frame's `own`. `old` and `new` are
    the frames and their views. At a cut the frame keeps its own.
    """
    before, after = (_copy(frame) for frame, _ in (old, new))
    if before.shape != after.shape or own.shape != corrected.shape:
        return own
    nothing: Any = None  # an array here would be an initial estimate
    estimator = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow = np.asarray(estimator.calc(after, before, nothing), np.float32)
    if is_cut(np.asarray(sampled(before, flow), np.uint8), after, _CUT):
        return own
    prior = TemporalPrior()
    prior.keep(_normalized(corrected)[None], old[1])
    in_view = prior.recall(own[None], new[1], False)[0]
    offsets = flow_on_grid(flow, new[1], *own.shape[1:])
    moved = np.stack([sampled(plane, offsets) for plane in in_view])
    return np.asarray(CARRIED * moved + (1 - CARRIED) * _normalized(own), np.float32)


def _copy(frame: Frame) -> NDArray[np.uint8]:
    """Return a small smooth copy of the luma."""
    scale = min(_WIDTH / frame.width, 1.0)
    size = max(round(frame.width * scale), 16), max(round(frame.height * scale), 16)
    small = cv2.resize(frame.luma, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (0, 0), _BLUR), np.uint8)


def _normalized(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return logits (K, h, w) as logarithms of probabilities."""
    top = logits.max(axis=0)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=0)), np.float32)
