"""The CUDA kernels built for this machine's own processor: the same source, under a shim that loops over blocks and threads."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import cliprl.pipeline.cuda
from cliprl.pipeline.cuda.kernels.kernel_arguments import Arguments, grid_of

KERNELS = Path(cliprl.pipeline.cuda.__file__).parent / "kernels"
COMPILERS = ("c++", "g++", "clang++")
# No fused multiply-add: what a kernel computes is what its source says, as on the GPU, where it is turned off too.
FLAGS = ("-O2", "-shared", "-fPIC", "-std=c++17", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-x", "c++")


def compiler() -> str | None:
    """A C++ compiler of this machine."""
    named = [os.environ["CXX"]] if "CXX" in os.environ else []
    return next((found for name in [*named, *COMPILERS] if (found := shutil.which(name))), None)


needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """All kernels, compiled once for a process of the tests and the commands that it starts."""
    found = compiler()
    assert found is not None
    source = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(KERNELS.glob("*.[ch]*")))).hexdigest()
    target = Path(os.environ["XDG_CACHE_HOME"]) / f"kernels-{source[:16]}.so"
    if not target.exists():
        made = target.with_suffix(f".{os.getpid()}.so")
        done = subprocess.run(
            [found, *FLAGS, str(KERNELS / "all.cu"), "-o", str(made)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        made.replace(target)
    return ctypes.CDLL(str(target))


def launch(arguments: Arguments) -> None:
    """Run a kernel to its end."""
    (grid_x, grid_y), (block_x, block_y) = grid_of(arguments)
    getattr(library(), f"{arguments.name}_run")(ctypes.byref(arguments), grid_x, grid_y, block_x, block_y)


def pitched(array: NDArray[Any], extra: int, fill: int = 0xA5) -> NDArray[Any]:
    """A copy of a plane whose lines are `extra` bytes apart, with `fill` between them: a view of a larger array."""
    height, row = len(array), array.dtype.itemsize * int(np.prod(array.shape[1:]))
    wide = np.full((height, row + extra), fill, np.uint8)
    wide[:, :row] = np.ascontiguousarray(array).reshape(height, -1).view(np.uint8)
    strides = (wide.strides[0], *np.ascontiguousarray(array).strides[1:])
    return np.ndarray(array.shape, array.dtype, wide, strides=strides)
