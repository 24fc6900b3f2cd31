"""What a compiled network looks like to the pipeline, and what a backend that compiles one has to offer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from cliprl.engines.errors import EngineError, UsageError

Array = NDArray[Any]
AUTO = "auto"
# Sizes that a graph leaves open, by the name of the dimension: smallest, usual, largest.
RANGES: Mapping[str, tuple[int, int, int]] = {"classes": (2, 12, 64), "batch": (1, 1, 8)}
# Is told, in a line, what takes time or was decided.
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor's element type, such as "float32", and its shape; -1 is a size that a run may choose."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size < 0 else str(size) for size in self.shape)
        return f"{self.dtype} ({sizes})"


class Engine(Protocol):
    """A compiled network with named tensors in and out, on the device it was compiled for."""

    backend: str
    precision: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once, synchronously. The outputs are views that the `buffers`-th next run overwrites (see `compile_engine`)."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend can serve on this machine, and if not, why, in a sentence a user can act on."""

    backend: str
    ready: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to make an engine of, and for what use: see `compile_engine`. A size of -1 in `shapes` is a number of classes
    that each run may choose within RANGES. `aside`, the path of a cache entry without its suffix, is where a
    backend may keep what makes the next build or start quicker; with None nothing is kept.
    """

    onnx: Path
    precision: str
    threads: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    buffers: int = 1
    aside: Path | None = None


class Backend(Protocol):
    """One way to run a network. What it builds is bytes, which a cache may keep and only the same machine may load."""

    name: str

    def probe(self) -> Probe:
        """Whether it can serve here. Never raises."""
        ...

    def precisions(self, files: Collection[str] = ()) -> tuple[str, ...]:
        """The arithmetic it has on this machine for a bundle of these files, the one to prefer first."""
        ...

    def lacks(self, precision: str, files: Collection[str]) -> str:
        """Why a precision can't be had on this machine for a bundle of these files; "" where it can."""
        ...

    def sources(self, precision: str) -> tuple[str, ...]:
        """The bundle's files that an encoder in this precision is made of, the network first."""
        ...

    def identity(self) -> Mapping[str, str]:
        """What a built engine depends on besides the request: versions and hardware, by name."""
        ...

    def build(self, request: Request) -> bytes:
        """Compile. Raises EngineError for a network or a precision that it can't compile."""
        ...

    def load(self, blob: bytes, request: Request) -> Engine:
        """Make ready to run what `build` returned for the same request. Raises EngineError where it does not load."""
        ...


# Where each backend lives: it is imported only when it is asked for, so that the light install loads no optional package.
BACKENDS: Mapping[str, str] = {
    "openvino": "cliprl.engines.backends.openvino.backend",
    "tensorrt": "cliprl.engines.backends.tensorrt.backend",
    "tensorrt_rtx": "cliprl.engines.backends.tensorrt.backend",
    "torch": "cliprl.engines.backends.torch.backend",
}
DEVICES: Mapping[str, tuple[str, ...]] = {"cpu": ("openvino",), "cuda": ("tensorrt", "tensorrt_rtx", "torch")}


def backend_of(name: str) -> Backend:
    """The backend called `name`. Raises UsageError for an unknown one."""
    if name not in BACKENDS:
        raise UsageError(f"unknown engine '{name}': one of {', '.join(BACKENDS)}")
    found: Backend = import_module(BACKENDS[name]).BACKENDS[name]
    return found


def probe(backend: str) -> Probe:
    """Ask a backend whether it can serve here. Raises UsageError for an unknown name."""
    return backend_of(backend).probe()


def ignore_message(message: str) -> None:
    """Tell nobody."""


def ready_backends(device: str, say: Say = ignore_message) -> list[Backend]:
    """The backends that can serve on `device`, the preferred first; `say` is told of those preferred that can't, and why.

    Raises UsageError for an unknown device, EngineError with every backend's reason where none serves.
    """
    if device not in DEVICES:
        raise UsageError(f"unknown device '{device}': one of {', '.join(DEVICES)}")
    answers = [probe(name) for name in DEVICES[device]]
    if not any(answer.ready for answer in answers):
        reasons = "; ".join(f"{answer.backend}: {answer.reason}" for answer in answers)
        raise EngineError(f"no engine can serve on device '{device}': {reasons}")
    for answer in takewhile(lambda answer: not answer.ready, answers):
        say(f"{answer.backend} does not serve: {answer.reason}")
    return [backend_of(answer.backend) for answer in answers if answer.ready]


def compile_engine(
    onnx: Path,
    *,
    device: str = "cpu",
    precision: str = AUTO,
    threads: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    buffers: int = 1,
) -> Engine:
    """Compile an ONNX file for `device` with the first of its backends that can serve; no cache, no accuracy gate.

    `precision` is "auto" (the backend's first) or one of the backend's; `threads` 0 means all cores; `shapes` fixes
    inputs whose sizes are open in the file; an output stays valid for `buffers` runs.
    Raises EngineError with every backend's reason where none serves.
    """
    backend = ready_backends(device)[0]
    chosen = backend.precisions()[0] if precision == AUTO else precision
    request = Request(onnx, chosen, threads, dict(shapes or {}), buffers)
    return backend.load(backend.build(request), request)
