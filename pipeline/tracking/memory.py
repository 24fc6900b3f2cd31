"""What an instrument has looked like: a bounded set of embeddings that differ from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Embedding = NDArray[np.float32]

# Embeddings that are kept for each instrument.
CAPACITY = 12
# An embedding is kept if its cosine similarity to all kept ones is below this.
_NOVEL = 0.98


class EmbeddingMemory:
    """Keeps up to `CAPACITY` embeddings (D,) of unit length. If it is full, a new one replaces the one most like the others."""

    def __init__(self) -> None:
        self._kept = np.empty((0, 0), np.float32)

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, embedding: Embedding) -> None:
        """Keep an embedding if it differs from those that are kept."""
        if not len(self._kept):
            self._kept = embedding[None].copy()
        elif float((self._kept @ embedding).max()) < _NOVEL:
            self._kept = np.vstack([self._kept, embedding])
            if len(self._kept) > CAPACITY:
                self._drop_most_redundant()

    def _drop_most_redundant(self) -> None:
        likeness = self._kept @ self._kept.T
        np.fill_diagonal(likeness, -1)
        self._kept = np.delete(self._kept, int(likeness.max(axis=1).argmax()), axis=0)

    def similarity(self, embedding: Embedding) -> float:
        """Return the largest cosine similarity to a kept embedding; 0 without one."""
        return float((self._kept @ embedding).max()) if len(self._kept) else 0.0
