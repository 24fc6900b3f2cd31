"""Memory by its address as torch's tensors, and the list of kernels that torch's own operators stand in for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ctypes import c_char
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliprl.pipeline.cuda.kernels.kernel_arguments import Arguments

# Views kept: a stream's buffers are few, and stay where they are.
_VIEWS = 4096
_TYPES = {"u1": torch.uint8, "i2": torch.int16, "i4": torch.int32, "f4": torch.float32, "f8": torch.float64}


class _Region:
    """Memory of a GPU as torch takes it from other libraries (numba's CUDA array interface, version 3)."""

    def __init__(self, address: int, shape: tuple[int, ...], strides: tuple[int, ...], kind: str) -> None:
        self.__cuda_array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "strides": strides,
            "typestr": np.dtype(kind).str,
            "version": 3,
        }


class Memory:
    """Views of one device's memory, "cpu" or a GPU's. A view that was asked for before is the same one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._views: OrderedDict[Any, Tensor] = OrderedDict()

    def view(
        self, address: int, shape: tuple[int, ...], kind: str = "u1", strides: tuple[int, ...] | None = None
    ) -> Tensor:
        """A tensor at an address; `strides` in bytes, None where it is contiguous. `kind` is NumPy's, such as "f4"."""
        key = (address, shape, kind, strides)
        if key not in self._views:
            self._views[key] = self._make(address, shape, kind, strides or _contiguous(shape, np.dtype(kind).itemsize))
            if len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return self._views[key]

    def _make(self, address: int, shape: tuple[int, ...], kind: str, strides: tuple[int, ...]) -> Tensor:
        if self.device.type != "cpu":
            return torch.as_tensor(_Region(address, shape, strides, kind), device=self.device)
        size = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + np.dtype(kind).itemsize
        memory = (c_char * size).from_address(address)
        flat = torch.frombuffer(memory, dtype=_TYPES[kind], count=size // np.dtype(kind).itemsize)
        return flat.as_strided(shape, tuple(step // np.dtype(kind).itemsize for step in strides))

    def range(self, stop: int) -> Tensor:
        """0, 1, … on the device: int64."""
        return torch.arange(stop, device=self.device)

    def inside(self, spans: int, height: int, width: int) -> Tensor | None:
        """Where columns lie in their line's span, bool (height, width); None where there is no table of them."""
        if not spans:
            return None
        table = self.view(spans, (height, 2), "i4")
        x = self.range(width)
        return (x >= table[:, :1]) & (x < table[:, 1:])


def _contiguous(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    strides: list[int] = []
    for length in reversed(shape):
        strides.insert(0, size)
        size *= length
    return tuple(strides)


# Takes a kernel's arguments; their fields are ctypes', of which no checker knows.
Stand = Callable[[Any, Memory], None]
STANDS: dict[str, Stand] = {}


def stands_for(kernel: type[Arguments]) -> Callable[[Stand], Stand]:
    """Enter a function that does what a kernel does."""

    def enter(stand: Stand) -> Stand:
        STANDS[kernel.name] = stand
        return stand

    return enter


def wide(table: Tensor) -> Tensor:
    """16 bits without sign, which torch has hardly any operators for, as int32."""
    return table.to(torch.int32) & 0xFFFF
