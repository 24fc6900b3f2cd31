"""Checks of a command line that typer lacks, and complete messages for those that it has."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from enum import Enum
from typing import Any

import typer

from cliprl.engines.errors import UsageError

# Numbers that no range of an option excludes.
_NOT_FINITE = ("nan", "inf", "infinity")


# What is left to typer.
_UNREAD: Any = object()
_WHOLE, _FRACTION = re.compile(r"-?[0-9]{1,15}"), re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")


def _read_plain_values(command: Any) -> None:
    """Let values that need no conversion, and plain numbers within their bounds, be read without typer's adapters.

    The first adapter imports pydantic, a tenth of a start. All other values are left to typer, which explains what is wrong.
    """
    for each in (command, *getattr(command, "commands", {}).values()):
        for parameter in each.get_params(typer.Context(each)):  # with --help
            if hasattr(parameter, "get_runtime_param") and hasattr(parameter, "type_descriptor"):
                reader = _PlainReader(parameter, parameter.get_runtime_param)
                parameter.get_runtime_param = lambda reader=reader: reader


class _PlainReader:
    """Reads the values of a parameter, in the place of what `typed` makes for it."""

    def __init__(self, parameter: Any, typed: Callable[[], Any]) -> None:
        self._parameter, self._typed = parameter, typed

    def coerce(self, value: Any, *context: Any, **named: Any) -> Any:
        """Return a value as typer does."""
        found = self._read(value)
        return self._typed().coerce(value, *context, **named) if found is _UNREAD else found

    def _read(self, value: Any) -> Any:
        multiple = self._parameter.multiple or self._parameter.nargs != 1
        kind, info = self._parameter.type_descriptor.annotation, self._parameter.type_descriptor.parameter_info
        if value is None:
            return () if multiple else None
        if info.parser is not None or info.clamp:
            return _UNREAD
        if multiple:
            plain = kind == list[str] and isinstance(value, tuple | list) and all(type(word) is str for word in value)
            return list(value) if plain else _UNREAD
        if type(value) is str and kind in (int, float):
            if not (_WHOLE if kind is int else _FRACTION).fullmatch(value):
                return _UNREAD
            value = kind(value)
        if type(value) is not kind or not issubclass(kind, str | int | float | Enum):
            return _UNREAD
        least, most = (info.min, info.max) if kind in (int, float) else (None, None)
        return value if (least is None or value >= least) and (most is None or value <= most) else _UNREAD

    def __getattr__(self, name: str) -> Any:
        return getattr(self._typed(), name)


def checked_command(app: typer.Typer) -> Any:
    """Build the command of an app, and check the values that it is given. Raises UsageError."""
    command = typer.main.get_command(app)
    _read_plain_values(command)
    _check_values(command)
    return command


def _check_values(command: Any) -> None:
    """Raise UsageError for an option with an empty value, which a path would read as the current folder, and for nan or inf."""
    commands = [command, *getattr(command, "commands", {}).values()]
    options = [p for c in commands for p in c.params if p.param_type_name == "option" and not p.is_flag]
    # The value of an option with a metavar in brackets is optional.
    names = {name for p in options if not (p.metavar or "").startswith("[") for name in p.opts}
    numbers = {name for p in options if _takes_fractions(p) for name in p.opts}
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    for word, value in zip(words[:end], [*words[1:], None], strict=False):
        if (word in names and value == "") or (word.endswith("=") and word[:-1] in names):
            raise UsageError(f"{word.rstrip('=')} has an empty value: give it one, or leave the option out")
        name, equals, given = word.partition("=")
        given = given if equals else value or ""
        if name in numbers and given.strip().lstrip("+-").lower() in _NOT_FINITE:
            raise UsageError(f"{name} is '{given}': it must be a finite number")


def _takes_fractions(option: Any) -> bool:
    """Whether an option's value is a float, wherever this version of typer keeps its type."""
    described = getattr(getattr(option, "type_descriptor", None), "annotation", None)
    return described in (float, float | None) or getattr(getattr(option, "type", None), "name", "").startswith("float")


def describe_misuse(error: Any, program: str) -> str:
    """Return the line for a refused command line: the complaint of typer, the refused value, and where the help is."""
    return f"{error.format_message().rstrip('.')}{_given(error)}.{_file_hint()} See {program} --help"


def _file_hint() -> str:
    """Explain how to name a file whose name was read as options."""
    name = next((word for word in sys.argv[1:] if word.startswith("-") and os.path.isfile(word)), "")
    return f" For the file '{name}' write './{name}'." if name else ""


def _given(error: Any) -> str:
    """The value that was refused, which typer's own message leaves out."""
    words = [part for word in sys.argv[1:] for part in (word.split("=", 1) if word.startswith("--") else [word])]
    for name in getattr(getattr(error, "param", None), "opts", ()):
        if name in words[:-1]:
            return f", not '{words[words.index(name) + 1]}'"
    return ""
