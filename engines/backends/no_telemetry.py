"""Import OpenVINO and NNCF without their telemetry.

Both send a report over the network when they are imported, unless the user has opted out on this machine. A program that
hospitals run must not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

# The telemetry package, and OpenVINO's model converter, which sends a report at import and takes a seventh
# of a warm start. Neither is used here.
UNWANTED = ("openvino_telemetry", "openvino.tools.ovc")


def openvino() -> Any:
    """The package openvino. Raises ImportError where it can't be imported."""
    with _hidden():
        return import_module("openvino")


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
