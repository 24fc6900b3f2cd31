"""What a compiled network looks like to the pipeline, and the choice of the backend that runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from cliprl.engines.errors import EngineError, UsageError

Array = NDArray[Any]


class Engine(Protocol):
    """A compiled network with named tensors in and out."""

    backend: str
    precision: str

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once, synchronously. The outputs are views that the `buffers`-th next run overwrites (see `compile_engine`)."""
        ...


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend can serve on this machine, and if not, why, in a sentence a user can act on."""

    backend: str
    ready: bool
    reason: str


# Each backend is a module with `probe() -> Probe` and `compile(onnx, *, precision, threads, shapes, buffers) -> Engine`;
# it is imported only when it is asked for, so that the light install loads no optional package.
BACKENDS: Mapping[str, str] = {"openvino": "cliprl.engines.openvino_backend"}
DEVICES: Mapping[str, tuple[str, ...]] = {"cpu": ("openvino",)}


def probe(backend: str) -> Probe:
    """Ask a backend whether it can serve here. Raises UsageError for an unknown name."""
    found: Probe = _backend(backend).probe()
    return found


def _backend(name: str) -> Any:
    if name not in BACKENDS:
        raise UsageError(f"unknown engine '{name}': one of {', '.join(BACKENDS)}")
    return import_module(BACKENDS[name])


def compile_engine(
    onnx: Path,
    *,
    device: str = "cpu",
    precision: str = "auto",
    threads: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    buffers: int = 1,
) -> Engine:
    """Compile an ONNX file for `device` with the first of its backends that can serve.

    `precision` is "auto" (the fastest the hardware has natively), "f32" or "bf16"; `threads` 0 means all cores;
    `shapes` fixes inputs whose sizes are open in the file; an output stays valid for `buffers` runs.
    Raises EngineError with every backend's reason where none serves.
    """
    reasons = []
    for name in DEVICES[device]:
        answer = probe(name)
        if answer.ready:
            compiler: Callable[..., Engine] = _backend(name).compile
            return compiler(onnx, precision=precision, threads=threads, shapes=dict(shapes or {}), buffers=buffers)
        reasons.append(f"{name}: {answer.reason}")
    raise EngineError(f"no engine can serve on device '{device}': {'; '.join(reasons)}")
