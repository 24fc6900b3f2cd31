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
_CODES = np.array([[16, 4, 1]], np.float32)


class Appearance:
    """Embeds regions of one frame.

    image: the network input, uint8 (H, W, 3) RGB. features: float32 (D, h, w) on the network's grid, None if unknown; then only
    the colors count.
    """

    def __init__(self, image: NDArray[np.uint8], features: NDArray[Any] | None, grid: tuple[int, int]) -> None:
        self._image, self._features, self._grid = image, features, grid

    def gray(self, *, colors_follow: bool) -> NDArray[np.uint8]:
        """Return the green channel of each cell: uint8 (h, w). Faster if it is known whether `colors` will be read."""
        if colors_follow or "_small" in vars(self):
            return np.asarray(cv2.extractChannel(self._small, 1), np.uint8)
        return self._at_cells(np.asarray(cv2.extractChannel(self._image, 1), np.uint8))

    @cached_property
    def _small(self) -> NDArray[np.uint8]:
        return self._at_cells(self._image)

    def _at_cells(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rows, columns = self._grid
        # Halving twice takes a third of the time of one step.
        half = (min(2 * columns, image.shape[1]), min(2 * rows, image.shape[0]))
        small = cv2.resize(image, half, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)

    def embed(self, region: NDArray[np.uint8]) -> Embedding:
        """Return the embedding of a region (uint8 (h, w), 1 or 0) that has cells: float32 of unit length."""
        (cells,) = region.view(np.bool_).ravel().nonzero()
        parts = [np.sqrt(np.bincount(self.colors.ravel().take(cells), minlength=COLOR_BINS).astype(np.float32))]
        if self._features is not None:
            # A product with the mask takes a fifth of the time that picking its cells takes.
            first, last = (int(cell) // region.shape[1] for cell in cells[[0, -1]])
            mask = region[first : last + 1].ravel() * np.float32(1 / len(cells))
            parts.append(self._features[:, first : last + 1].reshape(len(self._features), -1) @ mask)
        weight = np.float32(1 / np.sqrt(len(parts)))
        return np.concatenate([part * (weight / max(float(np.linalg.norm(part)), 1e-6)) for part in parts])

    @cached_property
    def colors(self) -> NDArray[np.uint8]:
        """The color of each cell, below `COLOR_BINS`: uint8 (h, w)."""
        return np.asarray(cv2.transform(self._small >> 6, _CODES), np.uint8)
