"""The exceptions for users: one line that names the value, the rule and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError

# Pydantic's types of an error for a name that a model or a dataclass lacks.
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


class CliprlError(Exception):
    """A run that failed for a reason the user can act on. The command line prints its text and exits with `exit_status`."""

    exit_status = 1


class UsageError(CliprlError):
    """A request that can't be served as it was put: a missing file, an unknown class, a bad option."""

    exit_status = 2


class BundleError(CliprlError):
    """An engine bundle that is incomplete, altered or of another format."""


class EngineError(CliprlError):
    """A network that could not be compiled or run."""


def reason_of(error: BaseException, line: int = 0) -> str:
    """Return one line of an error's text, by default the first; without text "too little memory" or the error's class."""
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    if lines:
        return lines[line]
    return "too little memory" if isinstance(error, MemoryError) else type(error).__name__


def line_of(error: BaseException) -> str:
    """Return the whole text of an error on one line; without text, as `reason_of`."""
    return " ".join(str(error).split()) or reason_of(error)


@contextmanager
def explained(what: str, remedy: str, kind: type[CliprlError] = UsageError) -> Iterator[None]:
    """Raise an OSError of the block as an error of the `kind`: what fails, the reason in brackets, the remedy."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what} ({error.strerror or reason_of(error)}): {remedy}") from error


@dataclass(frozen=True, slots=True)
class FieldFault:
    """The first wrong field of a file: its place, pydantic's type of the error and its rule with the bounds, and the value."""

    path: tuple[str | int, ...]
    kind: str
    rule: str
    value: Any
    bounds: Mapping[str, Any] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """The names and numbers that lead to the field, with dots."""
        return "".join(c if c.isprintable() else "?" for c in ".".join(map(str, self.path)))[:80]

    @property
    def unknown(self) -> bool:
        """Whether it is a name that the file may not have."""
        return self.kind in _UNKNOWN

    def __str__(self) -> str:
        """One line: the place, the rule and the value."""
        if self.unknown:
            return f"unknown key '{self.place}'"
        if not self.place:
            return self.rule
        return f"{self.place}: {self.rule}" + ("" if self.kind == "missing" else f", not {str(self.value)[:40]!r}")


def first_fault(error: ValidationError) -> FieldFault:
    """Return the first wrong field that pydantic found; an unknown name comes before all others."""
    faults = error.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] in _UNKNOWN), faults[0])
    # Names of types that pydantic adds for a choice among several are no part of the place.
    parts, is_key = first["loc"], first["type"] in _UNKNOWN
    parents, key = (parts[:-1], parts[-1:]) if is_key else (parts, ())  # a key of the file may look like such a name
    path = (*(part for part in parents if not str(part).endswith("]") and "constrained-" not in str(part)), *key)
    rule = first["msg"].removeprefix("Value error, ")
    return FieldFault(path, first["type"], rule, first["input"], first.get("ctx", {}))
