"""What NVIDIA's management library tells of a GPU: how busy it is, and how much of its memory is taken. No package is needed."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any


class _Utilisation(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_ulonglong) for name in ("total", "free", "used"))


@dataclass(frozen=True, slots=True)
class Meter:
    """One GPU, as the library knows it."""

    _library: Any
    _handle: ctypes.c_void_p

    def busy(self) -> float | None:
        """Share of the last moments in which a kernel ran, in percent; None where it is not told."""
        found = _Utilisation()
        failed = self._library.nvmlDeviceGetUtilizationRates(self._handle, ctypes.byref(found))
        return None if failed else float(found.gpu)

    def memory(self) -> float | None:
        """Megabytes taken, by all processes; None where it is not told."""
        found = _Memory()
        failed = self._library.nvmlDeviceGetMemoryInfo(self._handle, ctypes.byref(found))
        return None if failed else found.used / 1e6


def open_meter(uuid: str) -> Meter | None:
    """The GPU with this UUID, as torch tells it; None where the library is missing or does not know the GPU."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    handle = ctypes.c_void_p()
    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByUUID(
        f"GPU-{uuid.removeprefix('GPU-')}".encode(), ctypes.byref(handle)
    ):
        return None
    return Meter(library, handle)
