"""OpenVINO and NNCF without their reports: both tell their maker, over the network, that they were imported.

They do so unasked, unless the user has declined on this machine. A program that hospitals run tells nobody.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

# What sends the reports, and OpenVINO's converter of models, which sends one at once, serves nothing here, and takes a
# seventh of a warm start. Both packages do without either.
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
    """What is unwanted looks as though it were not installed, and can be imported again by others afterwards."""
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in UNWANTED if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            if modules.get(name) is None:
                modules.pop(name, None)
