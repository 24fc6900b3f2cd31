"""What a data set yields, and what its label maps may say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec

Image = NDArray[np.uint8]

# Besides the classes' own numbers, a label map may hold partial knowledge.
NOT_INSTRUMENT = 253  # some class whose kind is not "instrument"
INSTRUMENT = 254  # some class whose kind is "instrument"
IGNORE = 255  # nothing is known


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture: image uint8 (H, W, 3) RGB, labels uint8 (H, W), and the sequence it comes from."""

    image: Image
    labels: Image
    sequence: str


class Dataset(Protocol):
    """Labelled pictures; those of one sequence follow each other in time."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def instrument_classes(classes: Sequence[ClassSpec]) -> NDArray[np.bool_]:
    """Which of the K classes are instruments: bool (K,)."""
    return np.array([spec.kind == "instrument" for spec in classes])


def allowed_groups(classes: Sequence[ClassSpec]) -> NDArray[np.bool_]:
    """As `allowed_classes`, but every code stands for all instruments, or for all classes that are none."""
    table, instrument = allowed_classes(classes), instrument_classes(classes)
    some, other = np.any(table & instrument, axis=1), np.any(table & ~instrument, axis=1)
    return np.asarray((some[:, None] & instrument) | (other[:, None] & ~instrument))


def allowed_classes(classes: Sequence[ClassSpec]) -> NDArray[np.bool_]:
    """Which classes each label code stands for: bool (256, K). IGNORE, and codes that mean nothing, allow every class."""
    instrument = instrument_classes(classes)
    table = np.ones((256, len(classes)), bool)
    table[: len(classes)] = np.eye(len(classes), dtype=bool)
    table[INSTRUMENT], table[NOT_INSTRUMENT] = instrument, ~instrument
    return table
