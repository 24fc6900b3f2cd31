"""The segmentation of a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport


@dataclass(slots=True, eq=False)
class Segmentation:
    """Labels at the resolution of the network, and the view that maps them onto the frame.

    labels: uint8 (h, w), the class of each cell of the network's grid, 0 (background) outside the field of view.
    probabilities: float32 (K, h, w), softmax of the refined logits; sums to 1 over K.
    confidence: mean of the largest probability over the cells in the field of view, 0..1.
    steps: number of refinement steps (0: none). moved: share of cells that the last step changed.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    view: Viewport
    confidence: float
    steps: int
    moved: float = 0.0
