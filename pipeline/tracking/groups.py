"""The groups of classes whose regions are instruments: the parts of one instrument form one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec

TOOL = "instrument"
# Words in the names of classes that are no instruments to operate with.
_THINGS = frozenset({"thread", "suture", "needle", "clamp", "clip", "gauze", "swab", "sponge", "bag", "drain"})


@dataclass(frozen=True, slots=True)
class ClassGroups:
    """table: uint8 (256,), the group of each class, from 1; 0 for classes without instances. names: those of groups 1, 2, …"""

    table: NDArray[np.uint8]
    names: tuple[str, ...]

    @classmethod
    def of(cls, classes: Sequence[ClassSpec]) -> ClassGroups:
        """Put all instrument classes into the group "instrument", but each class of small things ("thread") into its own.

        The parts and kinds of instruments are one group, because a network mistakes them for each other more often than it
        overlooks an instrument.
        """
        instruments = {i: spec.name for i, spec in enumerate(classes) if spec.kind == "instrument"}
        return cls.made({i: name if _is_thing(name) else TOOL for i, name in instruments.items()})

    @classmethod
    def made(cls, groups: Mapping[int, str]) -> ClassGroups:
        """Make the groups from the name of the group of each class id."""
        names = tuple(dict.fromkeys(groups.values()))
        table = np.zeros(256, np.uint8)
        for class_id, name in groups.items():
            table[class_id] = names.index(name) + 1
        return cls(table, names)


def _is_thing(name: str) -> bool:
    words = name.casefold().replace("-", " ").replace("_", " ").split()
    return any(word.removesuffix("s") in _THINGS for word in words)
