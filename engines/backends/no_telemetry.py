"""Import OpenVINO and NNCF without their telemetry, and OpenVINO without what only a compiler of networks needs.

Both send a report over the network when they are imported, unless the user has opted out on this machine. A program that
hospitals run must not.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any

# The telemetry package, and OpenVINO's model converter, which sends a report at import and takes a seventh
# of a warm start. Neither is used here.
UNWANTED = ("openvino_telemetry", "openvino.tools.ovc")
# OpenVINO's sets of operators, half of the time that its import takes: each is imported when it is first used.
_OPERATORS = tuple(f"openvino.opset{number}" for number in range(1, 31))
_importing = threading.Lock()


def openvino() -> Any:
    """The package openvino. Raises ImportError where it can't be imported."""
    with _importing, _hidden():
        if "openvino" in sys.modules:
            return import_module("openvino")
        left_out = {name: ModuleType(name) for name in _OPERATORS if name not in sys.modules}
        sys.modules.update(left_out)
        try:
            package = import_module("openvino")
        finally:
            for name in left_out:
                del sys.modules[name]
        for name in left_out:
            vars(package).pop(name.partition(".")[2], None)
        vars(package)["__getattr__"] = _import_operators
        return package


def _import_operators(name: str) -> Any:
    """The attribute of openvino that was left out."""
    if f"openvino.{name}" in _OPERATORS:
        with suppress(ImportError):
            return import_module(f"openvino.{name}")
    raise AttributeError(f"module 'openvino' has no attribute '{name}'")


def nncf() -> Any:
    """The package nncf. Raises ImportError where it can't be imported."""
    with _hidden():
        return import_module("nncf")


@contextmanager
def _hidden() -> Iterator[None]:
    """Make the unwanted modules look as if they were not installed; afterwards they can be imported again."""
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in UNWANTED if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            if modules.get(name) is None:
                modules.pop(name, None)
