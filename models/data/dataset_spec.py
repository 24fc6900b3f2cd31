"""Parse a data set line: KIND:FOLDER?OPTION=VALUE&OPTION=VALUE, as in endovis2015:/data/endovis2015?sequences=D1,OP1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from cliprl.engines import UsageError

# The strongest corruption of a data set.
MAX_SEVERITY = 5


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """The parts of a data set line. If a kind needs no folder, options may follow the colon: rendered:seeds=0-299."""

    kind: str
    path: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> DatasetSpec:
        """Parse a line. Raises UsageError for another form."""
        kind, colon, rest = text.partition(":")
        if not colon:
            raise UsageError(
                f"data set '{text}' is not of the form KIND:FOLDER or KIND:FOLDER?OPTION=VALUE&OPTION=VALUE, and no file or "
                "folder of that name holds labels"
            )
        path, mark, tail = rest.partition("?")
        if not mark and re.match(r"\w+=", rest):
            path, tail = "", rest
        options: dict[str, str] = {}
        for part in filter(None, tail.split("&")):
            key, equals, value = part.partition("=")
            if not equals or not value or key in options:
                raise UsageError(f"data set '{text}': '{part}' is no OPTION=VALUE, or its option is given twice")
            options[key] = value
        return cls(kind, path, options)

    def without_path(self, *, keep_name: bool = False) -> str:
        """Return the line without the folder: the same text on every machine. `keep_name` keeps the folder's own name."""
        name = PurePath(self.path).name if keep_name else ""
        mark = "?" if name and self.options else ""
        return f"{self.kind}:{name}{mark}" + "&".join(f"{key}={value}" for key, value in self.options.items())

    def number(self, key: str, default: float, most: float = 1e6) -> float:
        """Return an option as a number. Raises UsageError for text, and for a number that is not in 0..`most`."""
        text = self.options.get(key, str(default))
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value <= most:
            raise UsageError(
                f"data set '{self.without_path()}': {key} is '{text}', and must be a number from 0 to {most:g}"
            )
        return value

    def every(self) -> int:
        """Return N where each N-th frame is wanted, 1 for all. Raises UsageError for another value."""
        text = self.options.get("every", "1")
        if not (text.isascii() and text.isdecimal() and 0 < len(text) < 10 and int(text)):
            raise UsageError(
                f"data set '{self.without_path()}': every is '{text}': give every=N to take each N-th frame"
            )
        return int(text)

    def names(self, key: str) -> tuple[str, ...]:
        """Return an option as a list of names, separated by commas; empty if it is not given."""
        return tuple(filter(None, self.options.get(key, "").split(",")))


def severity_of(spec: DatasetSpec) -> float:
    """Return the severity of the corruption that a line asks for, 0..5. Raises UsageError for another value."""
    return spec.number("severity", 0, MAX_SEVERITY)


def parse_seeds(text: str) -> range | None:
    """Return the seeds that FIRST-LAST or FIRST names; None for another text, or if the last comes before the first."""
    first, _, last = text.partition("-")
    if not (first + (last or first)).isdecimal() or not first or int(last or first) < int(first):
        return None
    return range(int(first), int(last or first) + 1)
