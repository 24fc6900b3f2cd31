"""Upload small tables and patches through pinned memory that is reused as soon as it has been read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.cuda.gpu_api import Buffer, CudaStream, Event, Gpu

_LEAST = 4096


@dataclass(frozen=True, slots=True)
class _Pinned:
    memory: NDArray[np.uint8]
    sent: Event


class UploadBuffers:
    """Upload arrays to named buffers, in the order of one stream. Memory grows by doubling and is never freed."""

    def __init__(self, gpu: Gpu, stream: CudaStream) -> None:
        self._gpu, self._stream = gpu, stream
        self._pinned: list[_Pinned] = []
        self._buffers: dict[str, Buffer] = {}
        self._outgrown: list[Buffer] = []  # work under way may still read them

    def send(self, name: str, array: NDArray[Any]) -> int:
        """Copy a contiguous array to the buffer `name` and return its address, for work on the stream."""
        size = array.nbytes
        buffer = self._buffer(name, size)
        self._send(self._gpu.slice(buffer, 0, size), array.reshape(-1).view(np.uint8))
        return self._gpu.address(buffer)

    def send_to(self, buffer: Buffer, array: NDArray[Any]) -> None:
        """Copy a host array to a buffer of the same shape and type."""
        self._send(buffer, array)

    def _send(self, target: Buffer, array: NDArray[Any]) -> None:
        pinned = self._free(array.nbytes)
        source = pinned.memory[: array.nbytes].view(array.dtype).reshape(array.shape)
        source[...] = array
        self._gpu.copy(target, source, self._stream)
        self._gpu.record(pinned.sent, self._stream)

    def address(self, name: str) -> int:
        """Return the address of the buffer `name`."""
        return self._gpu.address(self._buffers[name])

    def _buffer(self, name: str, size: int) -> Buffer:
        held = self._buffers.get(name)
        if held is None or len(held) < size:
            if held is not None:
                self._outgrown.append(held)
            held = self._buffers[name] = self._gpu.empty((_room(size),), np.uint8)
        return held

    def _free(self, size: int) -> _Pinned:
        for pinned in self._pinned:
            if len(pinned.memory) >= size and self._gpu.done(pinned.sent):
                return pinned
        self._pinned.append(_Pinned(self._gpu.pinned((_room(size),), np.uint8), self._gpu.event()))
        return self._pinned[-1]


def _room(size: int) -> int:
    return max(_LEAST, 1 << (size - 1).bit_length())
