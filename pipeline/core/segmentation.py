"""What the network saw in a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport


@dataclass(frozen=True, slots=True)
class Segmentation:
    """Labels at the network's resolution, and the view that maps them onto the frame.

    labels: uint8 (h, w), the class of each cell of the network's grid, 0 (background) outside the endoscope's picture.
    probabilities: float32 (K, h, w), softmax of the refined logits; sums to 1 over K.
    confidence: mean over the picture's cells of the largest probability, 0..1.
    steps: refinement steps taken (0 is the base mask). moved: share of cells that the last step changed.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    view: Viewport
    confidence: float
    steps: int
    moved: float = 0.0
