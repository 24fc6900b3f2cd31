"""The kinds of promptable network, by name: each enters itself where it is written.

A new kind is one new module of this package that calls `register_promptable`. The first look-up imports all modules of
the package, so each imports optional packages only inside its functions. A kind of another room registers when its module
is imported.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path

from cliprl.engines.errors import UsageError
from cliprl.engines.promptable.interface import PromptableNetwork

# Takes the text after the colon and a number of threads (0: all cores).
PromptableFactory = Callable[[str, int], PromptableNetwork]


# The form and the factory of each kind.
_kinds: dict[str, tuple[str, PromptableFactory]] = {}


def register_promptable(form: str) -> Callable[[PromptableFactory], PromptableFactory]:
    """Decorate the factory of a kind. `form` is "NAME" or "NAME:ARGUMENT", as it is written in a specification.

    Raises ValueError for a name that another kind has.
    """
    name = form.partition(":")[0]
    if name in _kinds:
        raise ValueError(f"two kinds of promptable network are named '{name}': rename one")

    def register(factory: PromptableFactory) -> PromptableFactory:
        _kinds[name] = form, factory
        return factory

    return register


@cache
def _import_kinds() -> None:
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        import_module(f"{package}.{module.name}")


def open_promptable(spec: str, *, threads: int = 0) -> PromptableNetwork:
    """Open a promptable network: "grabcut", "sam:ENCODER.onnx,DECODER.onnx", or another registered kind.

    `threads` 0 means all cores. Raises UsageError for an unknown kind or a bad argument, EngineError for files that
    can't be compiled.
    """
    _import_kinds()
    name, colon, argument = spec.partition(":")
    if name not in _kinds:
        near = get_close_matches(name, _kinds, 1)
        forms = ", ".join(_kinds[known][0] for known in sorted(_kinds))
        hint = f"do you mean '{near[0]}'? " if near else ""
        raise UsageError(f"unknown promptable network '{spec}': {hint}give one of {forms}")
    form, factory = _kinds[name]
    if (":" in form) != bool(argument) or (colon and not argument):
        raise UsageError(f"promptable network '{spec}' is not of the form {form}: correct it")
    return factory(argument, threads)
