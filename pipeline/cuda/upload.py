"""Upload the numbers of each frame, small tables and patches through pinned memory that is reused once it has been read."""

from __future__ import annotations

from ctypes import addressof, memmove, sizeof
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.viewport import Viewport
from cliprl.pipeline.cuda.geometry import AxisTables
from cliprl.pipeline.cuda.gpu_api import Buffer, CudaStream, Event, Gpu
from cliprl.pipeline.cuda.kernels.kernel_arguments import FrameData

_LEAST = 4096
# Where the tables begin behind the numbers of a frame, and the most taps for which both are one copy: crops of up to 32 times the
# network input.
_TABLES, _TAPS = -(-sizeof(FrameData) // 256) * 256, 40


@dataclass(slots=True, eq=False)
class _Pinned:
    memory: NDArray[np.uint8]
    sent: Event
    read: bool = True


class UploadBuffers:
    """Upload arrays to named buffers, in the order of one stream. Memory grows by doubling and is never freed.

    Pinned memory is not used again before `close` was called after the uploads, and the stream has come that far.
    """

    def __init__(self, gpu: Gpu, stream: CudaStream) -> None:
        self._gpu, self._stream = gpu, stream
        self._pinned: list[_Pinned] = []
        self._open: list[_Pinned] = []
        self._buffers: dict[str, Buffer] = {}
        self._outgrown: list[Buffer] = []  # work under way may still read them

    def send(self, name: str, array: NDArray[Any]) -> int:
        """Copy an array to the buffer `name` and return its address, for work on the stream."""
        size = array.nbytes
        buffer, pinned = self._buffer(name, size), self._free(size)
        np.copyto(pinned.memory[:size].view(array.dtype).reshape(array.shape), array)
        self._gpu.copy(self._gpu.slice(buffer, 0, size), pinned.memory[:size], self._stream)
        return self._gpu.address(buffer)

    def close(self, *, done: bool = False) -> None:
        """Note the end of the uploads so far; `done`: the caller has waited for the stream since."""
        for pinned in self._open:
            pinned.read = done
            if not done:
                self._gpu.record(pinned.sent, self._stream)
        self._pinned += self._open
        self._open.clear()

    def _buffer(self, name: str, size: int) -> Buffer:
        held = self._buffers.get(name)
        if held is None or len(held) < size:
            if held is not None:
                self._outgrown.append(held)
            held = self._buffers[name] = self._gpu.empty((_room(size),), np.uint8)
        return held

    def _free(self, size: int) -> _Pinned:
        for pinned in self._pinned:
            if len(pinned.memory) >= size and (pinned.read or self._gpu.done(pinned.sent)):
                self._pinned.remove(pinned)
                break
        else:
            pinned = _Pinned(self._gpu.pinned((_room(size),), np.uint8), self._gpu.event())
        self._open.append(pinned)
        return pinned


def _room(size: int) -> int:
    return max(_LEAST, 1 << (size - 1).bit_length())


class FrameUpload:
    """The `FrameData` of one video stream in GPU memory, at a fixed `address`, with the tables of the view behind it.

    The caller writes `data`, and sends it for each frame, in the order of one stream.
    """

    def __init__(self, gpu: Gpu, network: tuple[int, int]) -> None:
        self._gpu, self.data = gpu, FrameData()
        self._room = 2 * sum(network) * 4 * (1 + _TAPS)
        self._memory = gpu.empty((_TABLES + self._room,), np.uint8)
        self.address, self._head = gpu.address(self._memory), gpu.slice(self._memory, 0, _TABLES)
        self._axes, self._unsent = AxisTables(), False
        # For tables without room behind the numbers; work under way may still read those before the last.
        self._large: list[Buffer] = []

    def pinned(self) -> NDArray[np.uint8]:
        """Allocate pinned memory for `send`."""
        return self._gpu.pinned((_TABLES + self._room,), np.uint8)

    def set_tables(self, view: Viewport) -> None:
        """Compute the tables of a view, and write their addresses."""
        if not self._axes.update(view):
            return
        size, self._unsent = self._axes.size, True
        if size > self._room and not (self._large and len(self._large[-1]) >= size):
            self._large.append(self._gpu.empty((_room(size),), np.uint8))
        large = size > self._room
        self._axes.place(self.data, self._gpu.address(self._large[-1]) if large else self.address + _TABLES)

    def send(self, pinned: NDArray[np.uint8], stream: CudaStream) -> None:
        """Enqueue the copy of the numbers, and of the tables if they have changed. `pinned` must not change until it is done."""
        memmove(pinned.ctypes.data, addressof(self.data), sizeof(self.data))
        size = self._axes.size if self._unsent else 0
        if size > self._room:
            self._send_large(stream)
            size = 0
        elif size:
            self._write_tables(pinned[_TABLES:])
        whole = self._gpu.slice(self._memory, 0, _TABLES + size) if size else self._head
        self._gpu.copy(whole, pinned[: _TABLES + size], stream)
        self._unsent = False

    def _write_tables(self, target: NDArray[np.uint8]) -> None:
        place = 0
        for table in self._axes.tables:
            target[place : place + table.nbytes] = table
            place += table.nbytes

    def _send_large(self, stream: CudaStream) -> None:
        """Copy large tables, and wait: this is rare."""
        size, done = self._axes.size, self._gpu.event()
        pinned = self._gpu.pinned((size,), np.uint8)
        self._write_tables(pinned)
        self._gpu.copy(self._gpu.slice(self._large[-1], 0, size), pinned, stream)
        self._gpu.record(done, stream)
        self._gpu.synchronize(done)
