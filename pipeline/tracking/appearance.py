"""The appearance of an instrument as an embedding: the network's features and the colors of its cells."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.tracking.memory import Embedding

# Longer side of the copy of the image that colors and motion are measured on.
_SIZE = 160
# Bins of the color histogram: two bits of each channel.
COLOR_BINS = 64


class Appearance:
    """Embeds regions of one frame.

    image: the network input, uint8 (H, W, 3) RGB. features: float32 (D, h, w) on the network's grid, None if unknown; then only
    the colors count.
    """

    def __init__(self, image: NDArray[np.uint8], features: NDArray[Any] | None, grid: tuple[int, int]) -> None:
        height, width = image.shape[:2]
        scale = min(_SIZE / max(height, width), 1.0)
        size = (round(width * scale), round(height * scale))
        self._small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        self._features, self._grid = features, grid

    @property
    def gray(self) -> NDArray[np.uint8]:
        """The green channel of a small copy of the image."""
        return np.asarray(cv2.extractChannel(self._small, 1), np.uint8)

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
        small = cv2.resize(self._small, self._grid[::-1], interpolation=cv2.INTER_AREA)
        red, green, blue = (np.asarray(channel, np.uint8) for channel in cv2.split(np.asarray(small, np.uint8) >> 6))
        return np.asarray((red << 4) | (green << 2) | blue, np.uint8)
