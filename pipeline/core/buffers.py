"""Working memory that is used again from frame to frame: fresh pages cost more than the arithmetic on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class BufferPool:
    """Named arrays that are allocated once and grow as needed. Not for use by two threads at once."""

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """An array with undefined contents. It shares its memory with all earlier ones of the same name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)
