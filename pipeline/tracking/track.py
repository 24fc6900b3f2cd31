"""One tracked instrument."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.tracking.memory import Embedding, EmbeddingMemory

# Frames in which a new region must be seen until it gets an id; fewer would number specks.
CONFIRMED = 3
# Frames between two looks at the appearance of an instrument in view.
_LOOK = 4


@dataclass(slots=True, eq=False)
class Track:
    """key: its value in the tracker's maps. id: 0 until it is confirmed. group: its class group, from 1.

    center: float (x, y) in grid cells, where it is or was last seen. hits: frames in which it was seen. missing: frames since
    then. has_shaft: whether it was ever seen to enter through the edge of the field of view.
    doubled: successive frames in which it looks like two instruments.
    """

    key: int
    group: int
    center: NDArray[np.float32]
    id: int = 0
    hits: int = 0
    missing: int = 0
    has_shaft: bool = False
    doubled: int = 0
    memory: EmbeddingMemory = field(default_factory=EmbeddingMemory)

    @property
    def due(self) -> bool:
        """Whether its appearance should be looked at in this frame."""
        return self.hits <= CONFIRMED or self.hits % _LOOK == 0

    def likeness(self, embedding: Embedding) -> float:
        """Return the similarity of an embedding to what it has looked like, 0..1."""
        return self.memory.similarity(embedding)
