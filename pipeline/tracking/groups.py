"""The groups of classes whose regions are instruments: the parts of one instrument form one group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec

TOOL = "instrument"
# The kind of the classes of tips.
TIP = 1
# Words in the names of the classes of tips: an instrument does not enter the field of view by its tip.
_TIPS = frozenset({"clasper", "jaw", "blade", "wrist", "tip"})
# Words in the names of classes that are no instruments to operate with.
_THINGS = frozenset({"thread", "suture", "needle", "clamp", "clip", "gauze", "swab", "sponge", "bag", "drain"})


@dataclass(frozen=True)
class ClassGroups:
    """table: uint8 (256,), the group of each class, from 1; 0 for classes without instances. names: those of groups 1, 2, …

    kinds: uint8 (256,), TIP for classes of tips, such as jaws; of the others of a group 0 for the first, 2 for the second, 3 for
    all further ones.
    """

    table: NDArray[np.uint8]
    names: tuple[str, ...]
    kinds: NDArray[np.uint8]

    @cached_property
    def _may_change(self) -> NDArray[np.uint8]:
        """uint8 (256,), 1 for classes whose cells may be of another group than that of the class: if that has several classes."""
        several = np.bincount(self.table, minlength=len(self.names) + 1)[1:] > 1
        return np.array([0, *(several.sum() > own for own in several)], np.uint8)[self.table]

    def most_probable(self, labels: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the group of each cell: uint8 (h, w), 0 where the class of `labels` has none.

        The classes of a group count together: a cell that may be a jaw, a wrist or a clamp is of an instrument rather than of a
        clamp. `probabilities`: (K, h, w).
        """
        groups = np.asarray(cv2.LUT(labels, self.table), np.uint8)
        if len(self.names) > 1:
            # The only group of several classes keeps the cells of its classes, each of which is more probable than other groups.
            may_change = np.asarray(cv2.LUT(labels, self._may_change), np.uint8)
            (cells,) = may_change.view(np.bool_).ravel().nonzero()
            if len(cells):
                sums = self._members[:, : len(probabilities)] @ probabilities.reshape(len(probabilities), -1).take(
                    cells, axis=1
                )
                groups.ravel()[cells] = sums.argmax(axis=0) + 1
        return groups

    @cached_property
    def _members(self) -> NDArray[np.float32]:
        """float32 (groups, 256), 1 where a class is of a group."""
        return np.asarray(self.table == np.arange(1, len(self.names) + 1)[:, None], np.float32)

    @classmethod
    def of(cls, classes: Sequence[ClassSpec]) -> ClassGroups:
        """Put all instrument classes into the group "instrument", but each class of small things ("thread") into its own.

        The parts and kinds of instruments are one group, because a network mistakes them for each other more often than it
        overlooks an instrument.
        """
        instruments = {i: spec.name for i, spec in enumerate(classes) if spec.kind == "instrument"}
        groups = {i: name if _has_word(name, _THINGS) else TOOL for i, name in instruments.items()}
        return cls.made(groups, [i for i, name in instruments.items() if _has_word(name, _TIPS)])

    @classmethod
    def made(cls, groups: Mapping[int, str], tips: Iterable[int] = ()) -> ClassGroups:
        """Make the groups from the name of the group of each class id, and the class ids of tips."""
        names = tuple(dict.fromkeys(groups.values()))
        table = np.zeros(256, np.uint8)
        for class_id, name in groups.items():
            table[class_id] = names.index(name) + 1
        kinds, tips, met = np.zeros(256, np.uint8), set(tips), dict.fromkeys(names, 0)
        for class_id in sorted(groups):
            if class_id in tips:
                kinds[class_id] = TIP
            else:
                kinds[class_id] = (0, 2, 3)[min(met[groups[class_id]], 2)]
                met[groups[class_id]] += 1
        return cls(table, names, kinds)


def _has_word(name: str, words: frozenset[str]) -> bool:
    parts = name.casefold().replace("-", " ").replace("_", " ").split()
    return any(part.removesuffix("s") in words for part in parts)
