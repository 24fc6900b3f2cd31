"""The engine backends, by name and by device: every backend enters itself where it is written.

A new backend is one new module of this package, or one module `backend` in a new sub-package. It defines a class with the methods
of `Backend` and calls `register_backend`. The first look-up imports these modules, so a backend imports optional packages
only inside its methods.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import takewhile
from pathlib import Path

from cliprl.engines.backends.engine import AUTO, Backend, Engine, LogFunction, Probe, Request, ignore_message
from cliprl.engines.errors import EngineError, UsageError


@dataclass(frozen=True, slots=True)
class _Entry:
    backend: Backend
    device: str
    preference: int


_entries: dict[str, _Entry] = {}


def register_backend(backend: Backend, *, device: str, preference: int) -> None:
    """Add a backend for `device`. Of a device's backends that can serve, the one with the lowest `preference` is used.

    Raises ValueError for a name that another backend has.
    """
    if backend.name in _entries:
        raise ValueError(f"two engine backends are named '{backend.name}': rename one")
    _entries[backend.name] = _Entry(backend, device, preference)


@cache
def _import_backends() -> None:
    """Import every module of this package, and the module `backend` of every sub-package."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        import_module(f"{package}.{module.name}.backend" if module.ispkg else f"{package}.{module.name}")


def _sorted_entries() -> list[_Entry]:
    _import_backends()
    return sorted(_entries.values(), key=lambda entry: (entry.device, entry.preference))


def device_names() -> list[str]:
    """The devices that some backend serves, such as "cpu"."""
    return list(dict.fromkeys(entry.device for entry in _sorted_entries()))


def backend_names(device: str | None = None) -> list[str]:
    """The names of the backends of one device, or of all; the preferred ones first.

    Raises UsageError for an unknown device.
    """
    if device is not None and device not in device_names():
        raise UsageError(f"unknown device '{device}': one of {', '.join(device_names())}")
    return [entry.backend.name for entry in _sorted_entries() if device in (None, entry.device)]


def backend_of(name: str) -> Backend:
    """The backend with this name. Raises UsageError for an unknown one."""
    if name not in backend_names():
        raise UsageError(f"unknown engine '{name}': one of {', '.join(backend_names())}")
    return _entries[name].backend


def precisions_help() -> str:
    """The precisions of every device in one line, for the help of a command line."""
    return "; ".join(f"{', '.join(_known_precisions(device))} on {device}" for device in device_names())


def _known_precisions(device: str) -> list[str]:
    return list(dict.fromkeys(each for name in backend_names(device) for each in backend_of(name).known_precisions))


def probe(backend: str) -> Probe:
    """Check whether a backend can serve on this machine. Raises UsageError for an unknown name."""
    return backend_of(backend).probe()


def ready_backends(device: str, log: LogFunction = ignore_message) -> list[Backend]:
    """The backends that can serve on `device`, the preferred first. `log` gets the reasons of preferred ones that can't.

    Raises UsageError for an unknown device, EngineError with every backend's reason if none can serve.
    """
    probes = [probe(name) for name in backend_names(device)]
    if not any(result.ready for result in probes):
        reasons = "; ".join(f"{result.backend}: {result.reason}" for result in probes)
        raise EngineError(f"no engine can serve on device '{device}': {reasons}")
    for result in takewhile(lambda result: not result.ready, probes):
        log(f"{result.backend} does not serve: {result.reason}")
    return [backend_of(result.backend) for result in probes if result.ready]


def compile_engine(
    onnx: Path,
    *,
    device: str = "cpu",
    precision: str = AUTO,
    threads: int = 0,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Engine:
    """Compile an ONNX file for `device` with the first backend that can serve; no cache, no accuracy gate.

    `precision` is "auto" (the backend's first) or one of the backend's; `threads` 0 means all cores; `shapes` fixes
    inputs whose sizes are open in the file; an output stays valid until the next run.
    Raises EngineError with every backend's reason if none can serve.
    """
    backend = ready_backends(device)[0]
    chosen = backend.precisions()[0] if precision == AUTO else precision
    request = Request(onnx, chosen, threads, dict(shapes or {}))
    return backend.load(backend.build(request), request)
