"""Memory that is reused from frame to frame: working arrays and the planes of frames."""

from __future__ import annotations

import math
from dataclasses import replace
from sys import getrefcount
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cliprl.pipeline.core.frame import Frame, Plane, allocate_planes

# Reference count of an unused array of the pool: the pool's tuple, the loop variable, the argument of getrefcount.
_FREE = 3
# Largest number of pairs in the pool: more than displays and recorders that keep up ever hold. Further pairs are not reused.
_MOST = 48


class BufferPool:
    """Named arrays that are allocated once and grow as needed. New memory pages would cost more than the arithmetic on them.

    Not for use by two threads at once.
    """

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """Return an array with undefined contents. It shares its memory with all earlier arrays of the same name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)


class PlanePool:
    """An allocator of NV12 planes (see `PlaneAllocator`) for frames that several readers share and do not release.

    A pair of planes is reused as soon as no frame, view or buffer refers to it, by Python's reference counts. For use by one
    thread; readers may be on any thread.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Plane, Plane]] = []

    def __call__(self, height: int, width: int) -> tuple[Plane, Plane]:
        """Return unused planes with undefined contents."""
        for luma, chroma in self._pairs:
            if getrefcount(luma) == _FREE and getrefcount(chroma) == _FREE and luma.shape == (height, width):
                return luma, chroma
        if self._pairs and self._pairs[0][0].shape != (height, width):
            self._pairs.clear()
        pair = allocate_planes(height, width)
        if len(self._pairs) < _MOST:
            self._pairs.append(pair)
        return pair

    def copy(self, frame: Frame) -> Frame:
        """Return a copy of a frame that may be drawn into. Its times are shared with the original."""
        luma, chroma = self(frame.height, frame.width)
        luma[:], chroma[:] = frame.luma, frame.chroma
        return replace(frame, luma=luma, chroma=chroma, slot=-1)
