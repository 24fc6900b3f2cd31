"""Compile the kernels for a GPU generation, without a GPU; the result is kept in the engine cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from cliprl.engines import EngineCache, EngineError, ignore_message
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.errors import line_of

KERNEL_FOLDER = Path(__file__).parents[1] / "kernels"
MAIN = "all.cu"
# Turing, Ampere (A100, then GeForce and RTX A), Ada, Hopper, Blackwell.
KERNEL_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm90", "sm120")
# No fused multiply-add: kernels compute the same on a GPU as in the tests on a CPU.
OPTIONS = ("--fmad=false", "--std=c++17")
_PART = "cubin"


def compiled_kernels(
    target: str, cache: EngineCache | None = None, log: Callable[[str], None] = ignore_message
) -> bytes:
    """Return the cubin of all kernels for `target`, such as "sm90", from the cache if it was compiled before.

    Raises EngineError where there is neither NVRTC nor nvcc, or they can't compile for it.
    """
    sources = read_sources()
    name, version = compiler()
    fields = {
        "bundle": "kernels",
        "backend": "cuda",
        "precision": target,
        "sources": hashlib.sha256("\0".join(text for pair in sources.items() for text in pair).encode()).hexdigest(),
        "options": " ".join(OPTIONS),
        "compiler": f"{name} {version}",
    }
    cache = cache or EngineCache()
    return cache.get_or_make(fields, lambda: StoredEntry({_PART: compile_sources(sources, target)}), log).parts[_PART]


@lru_cache(maxsize=1)
def read_sources() -> Mapping[str, str]:
    """Return all source files by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(KERNEL_FOLDER.iterdir()) if path.is_file()}


@lru_cache(maxsize=1)
def compiler() -> tuple[str, str]:
    """Return the compiler, "nvrtc" or "nvcc", and its version. Raises EngineError where neither is installed."""
    try:
        nvrtc: Any = import_module("cuda.bindings.nvrtc")
        major, minor = _checked(nvrtc, None, nvrtc.nvrtcVersion())
        return "nvrtc", f"{major}.{minor}"
    except (ImportError, RuntimeError, OSError) as error:
        reason = line_of(error)
    found = shutil.which("nvcc")
    if found is None:
        raise EngineError(
            f"no compiler for CUDA kernels ({reason}; no nvcc): pip install cuda-bindings nvidia-cuda-nvrtc"
        )
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return "nvcc", told[told.index("release") + 1].rstrip(",") if "release" in told else "unknown"


def compile_sources(sources: Mapping[str, str], target: str) -> bytes:
    """Compile `MAIN` among the sources. Raises EngineError with the compiler's first error."""
    return (_by_nvrtc if compiler()[0] == "nvrtc" else by_nvcc)(sources, target)


def _by_nvrtc(sources: Mapping[str, str], target: str) -> bytes:
    nvrtc: Any = import_module("cuda.bindings.nvrtc")
    names, texts = ([each.encode() for each in part] for part in (sources.keys(), sources.values()))
    main = sources[MAIN].encode()
    (program,) = _checked(nvrtc, None, nvrtc.nvrtcCreateProgram(main, MAIN.encode(), len(names), texts, names))
    try:
        options = [option.encode() for option in (f"--gpu-architecture={_architecture(target)}", *OPTIONS)]
        _checked(nvrtc, program, nvrtc.nvrtcCompileProgram(program, len(options), options))
        (size,) = _checked(nvrtc, program, nvrtc.nvrtcGetCUBINSize(program))
        cubin = bytearray(size)
        _checked(nvrtc, program, nvrtc.nvrtcGetCUBIN(program, cubin))
        return bytes(cubin)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _checked(nvrtc: Any, program: Any, answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the results of a call. Raises EngineError for a status other than success."""
    status, *values = answer
    if status == nvrtc.nvrtcResult.NVRTC_SUCCESS:
        return tuple(values)
    raise EngineError(f"NVRTC can't compile the kernels ({status.name}): {_log(nvrtc, program)}")


def _log(nvrtc: Any, program: Any) -> str:
    if program is None:
        return "it gives no reason"
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    text = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, text)
    return _first_error(text.decode(errors="replace").rstrip("\0"))


def by_nvcc(sources: Mapping[str, str], target: str) -> bytes:
    """Compile with the CUDA toolkit's nvcc, where NVRTC is not installed."""
    with tempfile.TemporaryDirectory(prefix="cliprl-nvcc-") as folder:
        for name, text in sources.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        command = ["nvcc", "-cubin", f"-arch={_architecture(target)}", *OPTIONS, "-o", "kernels.cubin", MAIN]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EngineError(f"nvcc can't compile the kernels: {_first_error(done.stderr or done.stdout)}")
        return Path(folder, "kernels.cubin").read_bytes()


def _architecture(target: str) -> str:
    return target.replace("sm", "sm_")


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return next(
        (line for line in lines if "error" in line.lower() or "fatal" in line.lower()),
        "; ".join(lines[:2]) or "no reason",
    )
