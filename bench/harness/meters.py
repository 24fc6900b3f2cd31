"""Meters: load and memory of a GPU by NVIDIA's management library (package nvidia-ml-py, extra `bench`), and energy.

Energy is read from the kernel's RAPL counters (/sys/class/powercap) and from the GPUs; a machine may tell neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
NOT_TOLD = "not told by this machine"


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


class EnergyMeter:
    """Energy of the processors' packages and of NVIDIA GPUs since its creation. `names` lists the meters that it reads."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._gpus = _gpu_energy()
        self._packages = _packages(powercap)
        self._start = self._read()

    @property
    def names(self) -> list[str]:
        """The meters that can be read here; none on most virtual machines."""
        return list(self._start)

    def joules(self) -> float | None:
        """Joules since the creation; None if no meter can be read."""
        if not self._start:
            return None
        now, total = self._read(), 0.0
        for name, (before, most) in self._start.items():
            spent = now.get(name, (before, most))[0] - before
            total += spent + most if spent < 0 else spent  # the counter wraps around
        return total

    def _read(self) -> dict[str, tuple[float, float]]:
        """Joules of each meter, and the value at which it wraps around."""
        found = {}
        for name, folder in self._packages.items():
            with suppress(OSError, ValueError):
                joules, most = (int((folder / f).read_text()) / 1e6 for f in ("energy_uj", "max_energy_range_uj"))
                found[name] = joules, most
        return found | {name: (query(), 0.0) for name, query in self._gpus.items()}


def _packages(powercap: Path) -> dict[str, Path]:
    """The folders of whole packages: their parts (cores, memory) count within them."""
    folders = {folder.name: folder for folder in powercap.glob("*:*") if folder.name.count(":") == 1}
    return {_text(folder / "name") or name: folder for name, folder in sorted(folders.items())}


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return ""


def _joules(read: Callable[[Any], int], handle: Any) -> float:
    return read(handle) / 1000


@cache
def _gpu_energy() -> dict[str, Callable[[], float]]:
    """A function for each NVIDIA GPU that gives its joules since the driver was loaded."""
    with suppress(Exception):  # no package, no driver, or a card without the counter
        library: Any = import_module("pynvml")
        library.nvmlInit()
        handles = [library.nvmlDeviceGetHandleByIndex(i) for i in range(library.nvmlDeviceGetCount())]
        read = library.nvmlDeviceGetTotalEnergyConsumption
        return {f"GPU {i}": partial(_joules, read, h) for i, h in enumerate(handles) if read(h) >= 0}
    return {}


def resident() -> float:
    """Return the resident set size of this process, in megabytes (10^6 bytes)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Sampler(threading.Thread):
    """Calls `sample` ten times a second from its start to `stop`, and keeps the results that are not None."""

    def __init__(self, sample: Callable[[], float | None]) -> None:
        super().__init__(daemon=True)
        self.values: list[float] = []
        self._sample, self._ended = sample, threading.Event()

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._ended.wait(0.1):
            value = self._sample()
            if value is not None:
                self.values.append(value)

    def stop(self) -> list[float]:
        """End the thread and return the samples."""
        self._ended.set()
        self.join(5)
        return self.values
