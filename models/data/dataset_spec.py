"""A data set in a line: KIND:FOLDER?OPTION=VALUE&OPTION=VALUE, as in endovis2015:/data/endovis2015?sequences=D1,OP1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cliprl.engines import UsageError


@dataclass(frozen=True, slots=True)
class Description:
    """The parts of the line. Where a set needs no folder, options may follow the colon: rendered:seeds=0-299."""

    kind: str
    place: str
    options: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Description:
        """Raises UsageError for a line of another form."""
        kind, colon, rest = text.partition(":")
        if not colon:
            raise UsageError(
                f"data set '{text}' is not of the form KIND:FOLDER or KIND:FOLDER?OPTION=VALUE&OPTION=VALUE"
            )
        place, mark, tail = rest.partition("?")
        if not mark and re.match(r"\w+=", rest):
            place, tail = "", rest
        options: dict[str, str] = {}
        for part in filter(None, tail.split("&")):
            key, equals, value = part.partition("=")
            if not equals or not value or key in options:
                raise UsageError(f"data set '{text}': '{part}' is no OPTION=VALUE, or its option is given twice")
            options[key] = value
        return cls(kind, place, options)

    def what(self) -> str:
        """The line without the folder: what is read, wherever it lies."""
        return f"{self.kind}:" + "&".join(f"{key}={value}" for key, value in self.options.items())

    def number(self, key: str, default: float) -> float:
        """An option that is a number. Raises UsageError where it is none, or negative."""
        text = self.options.get(key, str(default))
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not value >= 0:
            raise UsageError(f"data set '{self.what()}': {key} is '{text}', and must be a number of at least 0")
        return value

    def names(self, key: str) -> tuple[str, ...]:
        """An option that is a list of names, parted by commas; empty where it is not given."""
        return tuple(filter(None, self.options.get(key, "").split(",")))
