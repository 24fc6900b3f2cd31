"""Probe images of the accuracy gate: rendered scenes, so that a bundle contains no frame of a data set."""

from __future__ import annotations

import cv2
import numpy as np

from cliprl.models.data.sample import Image
from cliprl.pipeline.synthetic import SceneRenderer

# Scenes that no recipe trains on.
FIRST_SEED, COUNT = 900_001, 8
MOMENT = 0.5


def probe_images(height: int, width: int) -> Image:
    """Render COUNT scenes at twice the size and reduce them: uint8 (COUNT, height, width, 3) RGB."""
    scenes = (SceneRenderer(seed, 2 * height, 2 * width) for seed in range(FIRST_SEED, FIRST_SEED + COUNT))
    drawn = [cv2.resize(one.render(MOMENT)[0], (width, height), interpolation=cv2.INTER_AREA) for one in scenes]
    return np.stack(drawn).astype(np.uint8)
