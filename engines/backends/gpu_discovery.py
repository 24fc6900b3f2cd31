"""Query the NVIDIA driver for its version and its GPUs, without any optional package."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DRIVER_LIBRARIES = ("libcuda.so.1", "nvcuda.dll")
_MANAGEMENT_LIBRARIES = ("libnvidia-ml.so.1", "nvml.dll")
# Attribute numbers of cuDeviceGetAttribute, from cuda.h.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """One GPU: its name and its compute capability, such as (8, 6)."""

    name: str
    capability: tuple[int, int]

    @property
    def target(self) -> str:
        """The capability as in the names of engines, such as "sm86"."""
        return f"sm{self.capability[0]}{self.capability[1]}"


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """The driver: its version ("" where unknown), the newest CUDA it supports, the GPUs it sees, and the current one's number."""

    version: str
    cuda: tuple[int, int]
    gpus: tuple[GpuInfo, ...]
    current: int = 0

    @property
    def gpu(self) -> GpuInfo:
        """The GPU that was current in the calling thread, the first by default. Raises IndexError without GPUs."""
        return self.gpus[self.current if self.current < len(self.gpus) else 0]


def find_driver() -> DriverInfo | None:
    """The NVIDIA driver of this machine, or None where there is none."""
    cuda = _library(_DRIVER_LIBRARIES)
    if cuda is None:
        return None
    number = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(number))
    gpus = _gpus(cuda) if cuda.cuInit(0) == 0 else ()
    return DriverInfo(
        _driver_version(), (number.value // 1000, number.value % 1000 // 10), gpus, _current(cuda) if gpus else 0
    )


NO_DRIVER = "no NVIDIA driver on this machine: install it, or run with --device cpu"


def no_gpu(driver: DriverInfo) -> str:
    """The error message for a driver that finds no GPU."""
    return f"driver {driver.version or 'present'} sees no GPU: see nvidia-smi, and start a container with --gpus all"


def gpu_identity() -> Mapping[str, str]:
    """Driver and GPU of this machine, for the cache key of an engine."""
    driver = find_driver()
    found = driver is not None and driver.gpus
    return {
        "driver": driver.version if driver else "none",
        "gpu": f"{driver.gpu.name} {driver.gpu.target}" if driver and found else "none",
    }


def _library(names: tuple[str, ...]) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _gpus(cuda: ctypes.CDLL) -> tuple[GpuInfo, ...]:
    count, found = ctypes.c_int(), []
    if cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        major, minor = ctypes.c_int(), ctypes.c_int()
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(name, len(name), device)
        cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
        found.append(GpuInfo(name.value.decode(errors="replace"), (major.value, minor.value)))
    return tuple(found)


def _current(cuda: Any) -> int:
    """Return the number of the GPU whose context is current in the calling thread; 0 without one."""
    device = ctypes.c_int()
    return device.value if cuda.cuCtxGetDevice(ctypes.byref(device)) == 0 else 0


def _driver_version() -> str:
    management = _library(_MANAGEMENT_LIBRARIES)
    if management is None or management.nvmlInit_v2() != 0:
        return ""
    text = ctypes.create_string_buffer(96)
    management.nvmlSystemGetDriverVersion(text, len(text))
    management.nvmlShutdown()
    return text.value.decode(errors="replace")
