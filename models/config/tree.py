"""A typed tree of settings from TOML: dataclasses filled in, every name and type checked."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from cliprl.engines import UsageError


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Change `tree` as "a.b=value" says; what is not a TOML value is taken as text. Raises UsageError for another form."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UsageError(f"override '{override}' is not of the form a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UsageError(f"override '{override}': '{parent}' is a value, not a section")
    tree[last] = value


def build(kind: Any, tree: Mapping[str, Any], where: str = "") -> Any:
    """Make a dataclass `kind` of the TOML table `tree`, whose place in the file is `where`.

    Raises UsageError for an unknown setting, a value of the wrong type, and a negative number.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in hints:
            raise UsageError(f"unknown setting '{where}{key}': one of {', '.join(hints)}")
        hint = hints[key]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise UsageError(f"setting '{where}{key}' is a section, not the value {value!r}")
            values[key] = build(hint, value, f"{where}{key}.")
        elif get_origin(hint) is tuple:
            values[key] = _several(get_args(hint), value, where + key)
        else:
            values[key] = _scalar(hint, value, where + key)
    return kind(**values)


def _several(kinds: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    """The list of a tuple[T, ...], or of a tuple[T, T] of just so many."""
    many = kinds[-1] is Ellipsis
    if not isinstance(value, list) or (not many and len(value) != len(kinds)):
        rule = f"a list of {'' if many else f'{len(kinds)} '}{kinds[0].__name__}"
        raise UsageError(f"setting '{name}' is {value!r}: it must be {rule}")
    return tuple(_scalar(kinds[0], one, name) for one in value)


def _scalar(hint: type, value: Any, name: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise UsageError(f"setting '{name}' is {value!r}: it must be of type {hint.__name__}")
    if isinstance(value, int | float) and value < 0:
        raise UsageError(f"setting '{name}' is {value!r}: it must not be negative")
    return value


def flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Values by their full names, "supervised.rate", of a tree of dictionaries. Tuples become lists."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{where}{key}.")
        else:
            values[where + key] = list(value) if isinstance(value, tuple) else value
    return values
