"""Load and memory of a GPU, by NVIDIA's management library (package nvidia-ml-py, extra `bench`)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True, slots=True)
class Meter:
    """One GPU, as the library knows it."""

    _library: Any
    _handle: Any

    def busy(self) -> float | None:
        """Share of the last sampling period in which a kernel ran, in percent; None if the GPU does not report it."""
        return self._read(lambda: float(self._library.nvmlDeviceGetUtilizationRates(self._handle).gpu))

    def memory(self) -> float | None:
        """Megabytes (10^6 bytes) in use by all processes; None if the GPU does not report it."""
        return self._read(lambda: self._library.nvmlDeviceGetMemoryInfo(self._handle).used / 1e6)

    def _read(self, query: Any) -> float | None:
        try:
            value: float = query()
        except self._library.NVMLError:
            return None
        return value


def open_meter(uuid: str) -> Meter | None:
    """The GPU with this UUID, as torch gives it; None if package or driver is missing or the GPU is unknown to them."""
    try:
        library: Any = import_module("pynvml")
    except ImportError:
        return None
    try:
        library.nvmlInit()
        return Meter(library, library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}"))
    except library.NVMLError:
        return None
