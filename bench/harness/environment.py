"""What a measurement runs on: the machine, its load meanwhile, and the bundle of networks."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cliprl.bench.harness.host import HostWatch
from cliprl.bench.harness.meters import NOT_TOLD, EnergyMeter
from cliprl.engines import Bundle, available_cpus
from cliprl.engines.bundle.bundle import file_hash
from cliprl.engines.bundle.manifest import MANIFEST

# Vector instructions that the engines and codecs use.
FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16"),
    *("avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "neon", "asimd", "asimddp", "bf16", "i8mm", "sve"),
)
PACKAGES = (
    *("cliprl", "numpy", "av", "opencv-python-headless", "openvino"),
    *("onnxruntime", "torch", "torchvision", "torchcodec", "ultralytics", "supervision", "sam2", "transformers"),
)


def _cpuinfo(key: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    found = re.search(rf"^{key}\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def cpu_model() -> str:
    """The processor's name, as it reports it."""
    family = _cpuinfo("cpu family")
    name = _cpuinfo("model name") or platform.processor() or platform.machine()
    return f"{name} (family {family}, model {_cpuinfo('model')})" if family else name


def describe_machine() -> dict[str, Any]:
    """CPU, cores, vector units, memory, GPU, system and library versions. None if unknown; without the machine's name."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return {
        "cpu": cpu_model(),
        "cores": available_cpus(),
        "threads_per_core": _threads_per_core(),
        "cpu_flags": [flag for flag in FLAGS if flag in flags],
        "memory_gb": _memory(),
        "gpu": _gpu(),
        "energy_meters": EnergyMeter().names or NOT_TOLD,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in PACKAGES if (found := package_version(name))},
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Name, hash of the sealed manifest (which holds the hash of every file), input size, classes and steps of a bundle."""
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "sha256": file_hash(bundle.path / MANIFEST),
        "input": f"{manifest.width}x{manifest.height}",
        "classes": len(manifest.classes),
        "steps": manifest.steps,
    }


def slug(machine: Mapping[str, Any]) -> str:
    """A short name for files: the processor's (or graphics card's) name and the cores."""
    gpu = machine["gpu"]
    name = gpu[0].split(",")[0] if gpu else machine["cpu"].split(" (")[0]
    return f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}-{machine['cores']}-core"


def _threads_per_core() -> int | None:
    siblings, cores_of = _cpuinfo("siblings"), _cpuinfo("cpu cores")
    return int(siblings) // int(cores_of) if siblings and cores_of and int(cores_of) else None


def _memory() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1)


def _gpu() -> list[str] | None:
    """Name, memory and driver of each NVIDIA card; None without one."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout.strip().splitlines() if done.returncode == 0 and done.stdout.strip() else None


def package_version(package: str) -> str | None:
    """The installed version of a distribution, None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the source tree that runs, "+changes" if it was edited since; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists() or not shutil.which("git"):
        return None
    head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=root, capture_output=True, text=True)
    if head.returncode:
        return None
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", "*.py", "engines"], cwd=root, capture_output=True)
    return head.stdout.strip() + ("+changes" if changed.returncode else "")


class LoadWatch:
    """Measures the processor share of other programs between its creation and `block`; Linux only."""

    def __init__(self) -> None:
        self._watch, self._average = HostWatch(), _load_average()

    def block(self) -> dict[str, Any]:
        """`load_average` at the start and the end, and `other_load`, 0..1, time stolen by the host included."""
        seen = self._watch.reading()
        told = seen.others is not None and seen.seconds > 1
        other = round((seen.others or 0.0) + (seen.steal or 0.0), 3) if told else None
        return {"load_average": [self._average, _load_average()], "other_load": other}


def _load_average() -> float | None:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
