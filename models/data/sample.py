"""Samples of a data set, and the codes of their label maps."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec

Image = NDArray[np.uint8]

# Codes of partial labels, beside the indices of the classes.
NOT_INSTRUMENT = 253  # any class whose kind is not "instrument"
INSTRUMENT = 254  # any class whose kind is "instrument"
IGNORE = 255  # unknown


@dataclass(frozen=True, slots=True)
class Sample:
    """One labeled image: image uint8 (H, W, 3) RGB, labels uint8 (H, W), and its sequence."""

    image: Image
    labels: Image
    sequence: str


class Dataset(Protocol):
    """Labeled images; those of one sequence are in temporal order."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def hash_of_frames(dataset: Dataset, every: int = 1) -> str:
    """Return a hash of each `every`-th sample's image and labels."""
    found = hashlib.blake2b(digest_size=16)
    for index in range(0, len(dataset), every):
        sample = dataset[index]
        found.update(f"{sample.sequence} {sample.image.shape} {sample.labels.shape}".encode())
        found.update(sample.image.tobytes() + sample.labels.tobytes())
    return found.hexdigest()


def evenly_spaced(length: int, count: int) -> list[int]:
    """Return up to `count` of the indices 0..`length`-1, evenly spaced, from the first to the last."""
    return [int(place) for place in np.linspace(0, length - 1, min(length, count))]


def instrument_classes(classes: Sequence[ClassSpec]) -> NDArray[np.bool_]:
    """Return which of the K classes are instruments: bool (K,)."""
    return np.array([spec.kind == "instrument" for spec in classes])


def allowed_groups(classes: Sequence[ClassSpec]) -> NDArray[np.bool_]:
    """Return `allowed_classes` extended to groups: a code allows all instruments, or all other classes."""
    table, instrument = allowed_classes(classes), instrument_classes(classes)
    some, other = np.any(table & instrument, axis=1), np.any(table & ~instrument, axis=1)
    return np.asarray((some[:, None] & instrument) | (other[:, None] & ~instrument))


def allowed_classes(classes: Sequence[ClassSpec]) -> NDArray[np.bool_]:
    """Return the classes that each label code allows: bool (256, K).

    IGNORE and unknown codes allow every class, and so does a code that fits none of these, such as INSTRUMENT among tissues.
    """
    instrument = instrument_classes(classes)
    table = np.ones((256, len(classes)), bool)
    table[: len(classes)] = np.eye(len(classes), dtype=bool)
    for code, fitting in ((INSTRUMENT, instrument), (NOT_INSTRUMENT, ~instrument)):
        table[code] = fitting if fitting.any() else True
    return table
