"""Planes that are used again once nobody holds them."""

from __future__ import annotations

from dataclasses import replace
from sys import getrefcount

from cliprl.pipeline.core.frame import Frame, Plane, allocate_planes

# References to an array of the pool that nobody else holds: the pool's tuple, the loop's name, getrefcount's argument.
_FREE = 3
# More than are ever held at once by displays and recorders that keep up; what exceeds it is ordinary memory.
_MOST = 48


class PlanePool:
    """An allocator of NV12 planes (see `PlaneAllocator`) for pictures that many readers share and nobody gives back.

    A pair of planes is handed out again only once no frame, view or buffer refers to it any more, which Python's reference
    counts tell. For use by one thread; readers may be anywhere.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Plane, Plane]] = []

    def __call__(self, height: int, width: int) -> tuple[Plane, Plane]:
        """Planes with undefined contents that nobody else holds."""
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
        """A frame that may be painted, with the same picture, times and tags; the times are shared."""
        luma, chroma = self(frame.height, frame.width)
        luma[:], chroma[:] = frame.luma, frame.chroma
        return replace(frame, luma=luma, chroma=chroma, slot=-1)
