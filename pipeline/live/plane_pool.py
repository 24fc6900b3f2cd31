"""Planes of frames that several readers share, reused as soon as nothing refers to them."""

from __future__ import annotations

from dataclasses import replace
from sys import getrefcount

from cliprl.pipeline.core.frame import Frame, Plane, allocate_planes

# Largest number of pairs in the pool: more than displays and recorders that keep up ever hold. Further pairs are not reused.
_MOST = 48


def _references(pair: tuple[Plane, Plane]) -> tuple[int, int]:
    luma, chroma = pair
    return getrefcount(luma), getrefcount(chroma)


# The reference counts of a pair that nothing else refers to. Measured: versions of Python count what is on the stack or do not.
_FREE = _references(allocate_planes(2, 2))


class PlanePool:
    """An allocator of NV12 planes (see `PlaneAllocator`) for frames that several readers share and do not release.

    A pair of planes is reused as soon as no frame, view or buffer refers to it, by Python's reference counts. For use by one
    thread; readers may be on any thread.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Plane, Plane]] = []

    def __call__(self, height: int, width: int) -> tuple[Plane, Plane]:
        """Return unused planes with undefined contents."""
        for pair in self._pairs:
            if pair[0].shape == (height, width) and _references(pair) == _FREE:
                return pair[0], pair[1]  # another tuple: who keeps it refers to the planes
        if self._pairs and self._pairs[0][0].shape != (height, width):
            self._pairs.clear()
        pair = allocate_planes(height, width)
        if len(self._pairs) < _MOST:
            self._pairs.append(pair)
        return pair[0], pair[1]

    def copy(self, frame: Frame) -> Frame:
        """Return a copy of a frame that may be drawn into. Its times are shared with the original."""
        luma, chroma = self(frame.height, frame.width)
        luma[:], chroma[:] = frame.luma, frame.chroma
        return replace(frame, luma=luma, chroma=chroma, slot=-1)
