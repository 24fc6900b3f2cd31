"""Noise of the sensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


def gaussian_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Normal, of the same spread everywhere."""
    spread = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return image + np.float32(spread) * rng.standard_normal(image.shape, np.float32)


def shot_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Poisson: the fewer photons there are, the more it shows."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return (rng.poisson(image * photons) / photons).astype(np.float32)


def impulse_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Salt and pepper, in each channel by itself."""
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    dice = rng.random(image.shape, np.float32)
    return np.where(dice < share, (dice < share / 2).astype(np.float32), image)


def speckle_noise(image: FloatImage, severity: int, rng: np.random.Generator) -> FloatImage:
    """Normal, in proportion to the light."""
    spread = (0.15, 0.2, 0.35, 0.45, 0.6)[severity - 1]
    return image * (1 + np.float32(spread) * rng.standard_normal(image.shape, np.float32))
