"""Checks of a command line that typer lacks, and complete messages for those that it has."""

from __future__ import annotations

import os
import sys
from typing import Any

from cliprl.engines.errors import UsageError

# Numbers that no range of an option excludes.
_NOT_FINITE = ("nan", "inf", "infinity")


def check_values(command: Any) -> None:
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
