"""The interfaces of this room: a compiled network (`Engine`) and a library that compiles one (`Backend`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

Array = NDArray[Any]
AUTO = "auto"
# Sizes that a graph leaves open, by the name of the dimension: smallest, usual, largest.
AXIS_RANGES: Mapping[str, tuple[int, int, int]] = {"classes": (2, 12, 64), "batch": (1, 1, 8)}
# Receives one-line messages about what takes time and what was chosen.
LogFunction = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A named tensor's element type, such as "float32", and its shape; -1 is a size that a run may choose."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        sizes = ", ".join("?" if size < 0 else str(size) for size in self.shape)
        return f"{self.dtype} ({sizes})"


class Engine(Protocol):
    """A compiled network with named tensors in and out, on the device it was compiled for.

    Engines derive from it, also those of other packages: some members have defaults. at_once: how many runs at a time make a
    stream of files faster.
    """

    backend: str
    precision: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    at_once: int = 1

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run once, synchronously. The outputs are views that the `buffers`-th next run overwrites (see `Request`)."""


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a backend can serve on this machine, and if not, why, in a sentence a user can act on."""

    backend: str
    ready: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Request:
    """What to make an engine of, and for what use: see `compile_engine`. A size of -1 in `shapes` is a number of classes
    that each run may choose within RANGES. An output stays valid for `buffers` runs. `sidecar`, the path of a cache entry
    without its suffix, is where a backend may keep what makes the next build or start quicker; with None nothing is kept.
    """

    onnx: Path
    precision: str
    threads: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    buffers: int = 1
    sidecar: Path | None = None


class Backend(Protocol):
    """One way to run a network. What it builds is bytes, which a cache may keep and only the same machine may load."""

    name: str

    @property
    def known_precisions(self) -> tuple[str, ...]:
        """Every precision that it has on some machine."""

    def probe(self) -> Probe:
        """Check whether it can serve on this machine. Never raises."""

    def precisions(self, files: Collection[str] = ()) -> tuple[str, ...]:
        """The arithmetic it has on this machine for a bundle of these files, the one to prefer first."""

    def lacks(self, precision: str, files: Collection[str]) -> str:
        """Why a precision can't be had on this machine for a bundle of these files; "" where it can."""

    def sources(self, precision: str) -> tuple[str, ...]:
        """The bundle's files that an encoder in this precision is made of, the network first."""

    def identity(self) -> Mapping[str, str]:
        """What a built engine depends on besides the request: versions and hardware, by name."""

    def build(self, request: Request) -> bytes:
        """Compile. Raises EngineError for a network or a precision that it can't compile."""

    def load(self, blob: bytes, request: Request) -> Engine:
        """Make ready to run what `build` returned for the same request. Raises EngineError where it does not load."""


def ignore_message(message: str) -> None:
    """Drop a message."""
