"""The appearance of an instrument as an embedding: the network's features and the colors of its cells."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.tracking.memory import Embedding

# Bins of the color histogram: two bits of each channel.
COLOR_BINS = 64


class Appearance:
    """Embeds regions of one frame.

    image: the network input, uint8 (H, W, 3) RGB. features: float32 (D, h, w) on the network's grid, None if unknown; then only
    the colors count.
    """

    def __init__(self, image: NDArray[np.uint8], features: NDArray[Any] | None, grid: tuple[int, int]) -> None:
        self._image, self._features, self._grid = image, features, grid

    def embed(self, region: NDArray[np.uint8]) -> Embedding:
        """Return the embedding of a region (uint8 (h, w), 1 or 0) that has cells: float32 of unit length."""
        cells = np.flatnonzero(region)
        parts = [np.sqrt(np.bincount(self.colors.ravel()[cells], minlength=COLOR_BINS).astype(np.float32))]
        if self._features is not None:
            parts.append(self._features.reshape(len(self._features), -1)[:, cells].mean(axis=1))
        weight = np.float32(1 / np.sqrt(len(parts)))
        return np.concatenate([part * (weight / max(float(np.linalg.norm(part)), 1e-6)) for part in parts])

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """The color of each cell, below `COLOR_BINS`: uint8 (h, w)."""
        small = cv2.resize(self._image, self._grid[::-1], interpolation=cv2.INTER_AREA)
        high = np.asarray(small, np.uint8) >> 6
        return np.asarray(high[..., 0] * 16 + high[..., 1] * 4 + high[..., 2], np.uint8)
