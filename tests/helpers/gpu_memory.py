"""Memory of the simulated GPU: freed memory is poisoned and given out again at once, and work that touches it is found."""

from __future__ import annotations

import ctypes
import threading
import weakref
from bisect import bisect_right, insort
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

FRESH, POISON = 0x5A, 0xDD
_ROUND = 512


class _Owner:
    """What the arrays over one block keep alive; with the last of them the block is free."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


class Memory:
    """An arena as torch's allocator has one: a freed block is given out again while work that uses it may still be queued."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._bases: list[NDArray[np.uint8]] = []
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}
        self._free: dict[int, list[int]] = {}
        self._live: set[int] = set()
        self._foreign: dict[int, int] = {}
        self.recycled = 0

    def array(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array in a block: the last one that was freed of its size, or a new one."""
        kind = np.dtype(dtype)
        wanted = max(int(np.prod(shape, dtype=np.int64)) * kind.itemsize, 1)
        size = -(-wanted // _ROUND) * _ROUND
        with self._lock:
            spare = self._free.setdefault(size, [])
            self.recycled += bool(spare)
            start = spare.pop() if spare else self._new(size)
            ctypes.memset(start, FRESH, size)
            self._live.add(start)
        owner = _Owner({"data": (start, False), "shape": shape, "typestr": kind.str, "version": 3})
        weakref.finalize(owner, self._release, start, size).atexit = False
        found: NDArray[Any] = np.asarray(owner)
        return found

    def _new(self, size: int) -> int:
        base = np.empty(size + _ROUND, np.uint8)
        self._bases.append(base)
        start = -(-base.ctypes.data // _ROUND) * _ROUND
        insort(self._starts, start)
        self._sizes[start] = size
        return start

    def _release(self, start: int, size: int) -> None:
        with self._lock:
            ctypes.memset(start, POISON, size)
            self._live.discard(start)
            self._free[size].append(start)

    def foreign(self, array: NDArray[Any]) -> NDArray[Any]:
        """Note memory of a decoder, for as long as the array lives."""
        start = array.ctypes.data
        with self._lock:
            self._foreign[start] = start + array.strides[0] * len(array)
        weakref.finalize(array, self._foreign.pop, start, None).atexit = False
        return array

    def check(self, address: int) -> None:
        """Raise AssertionError where an address lies in freed memory, or in none of the GPU's."""
        with self._lock:
            at = bisect_right(self._starts, address) - 1
            start = self._starts[at] if at >= 0 else 0
            if at >= 0 and address < start + self._sizes[start]:
                assert start in self._live, f"work on the GPU touches freed memory at {address:#x}"
                return
            known = any(first <= address < last for first, last in self._foreign.items())
            assert known, f"work on the GPU touches memory at {address:#x} that is not the GPU's"


def unowned(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory in an array that keeps nothing alive, as work on a GPU keeps nothing alive."""
    return np.asarray(_Owner(dict(array.__array_interface__)))


def pointers(arguments: ctypes.Structure) -> list[int]:
    """All addresses in a kernel's arguments."""
    found = []
    for name, kind in arguments._fields_:  # type: ignore[misc]
        value = getattr(arguments, name)
        if kind is ctypes.c_void_p:
            found += [value] if value else []
        for part in value if isinstance(value, ctypes.Array) else [value]:
            found += pointers(part) if isinstance(part, ctypes.Structure) else []
    return found
