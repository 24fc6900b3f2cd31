"""The way of a corrected segmentation onto the next frame: it moves along with the image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.segment.motion import FlowEstimator, sampled
from cliprl.pipeline.segment.temporal_prior import TemporalPrior
from cliprl.pipeline.tracking.optical_flow import flow_on_grid

# Width of the copies that motion is measured on, and the standard deviation of their blur, which takes out noise, in pixels.
_WIDTH, _BLUR = 320, 1.5
_PRESET = cv2.DISOPTICAL_FLOW_PRESET_FAST
# Mean absolute difference of the motion-compensated copies above which there is a cut. Smoke makes large ones too.
_CUT = 40.0
# Weight of the carried logits against the network's own after one second; it falls by the same factor with each further one.
_WEIGHT = 0.6


def carried_logits(
    corrected: NDArray[np.float32], old: tuple[Frame, Viewport], new: tuple[Frame, Viewport]
) -> NDArray[np.float32] | None:
    """Return `corrected` logits (K, h, w) of a frame as seen in the next one: moved by optical flow. None at a cut.

    `old` and `new` are the frames and their views.
    """
    flow = FlowEstimator(preset=_PRESET, cut=_CUT).between(*(_copy(frame) for frame, _ in (old, new)))
    if flow is None:
        return None
    prior = TemporalPrior()
    prior.keep(corrected[None], old[1])
    in_view = prior.recall(corrected[None], new[1], False)[0]
    offsets = flow_on_grid(flow, new[1], *corrected.shape[1:])
    return np.asarray(np.stack([sampled(plane, offsets) for plane in in_view]), np.float32)


def mixed(carried: NDArray[np.float32], own: NDArray[np.float32], age: float) -> NDArray[np.float32]:
    """Return the logits (K, h, w) of a frame from those `carried` over `age` seconds and its `own`."""
    weight = _WEIGHT**age
    return np.asarray(weight * _normalized(carried) + (1 - weight) * _normalized(own), np.float32)


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
