"""From one list of classes to another: what a bundle sees, scored against what a data set tells, or sets trained together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Sample

Table = NDArray[np.uint8]
UNION = (
    ClassSpec("not-instrument", (0, 0, 0), "background"),
    ClassSpec("instrument", (0, 255, 0), "instrument"),
)


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The classes to score in, and tables uint8 (256,) that take truth labels, and predicted labels, to them."""

    classes: tuple[ClassSpec, ...]
    truth: Table
    predicted: Table


def map_to_instrument(truth: Sequence[ClassSpec], predicted: Sequence[ClassSpec], ignored: Collection[str]) -> ClassMap:
    """Instrument or not, the classes of each side taken together by their kind; of `ignored` truth classes nothing counts."""
    tables = [_table([int(spec.kind == "instrument") for spec in side]) for side in (truth, predicted)]
    tables[0][[INSTRUMENT, NOT_INSTRUMENT]] = 1, 0
    tables[0][_numbers(truth, ignored)] = IGNORE
    return ClassMap(UNION, *tables)


def map_by_name(
    truth: Sequence[ClassSpec], predicted: Sequence[ClassSpec], renamed: Mapping[str, str], ignored: Collection[str]
) -> ClassMap:
    """The truth's classes, but for `ignored` ones. Each predicted class counts as the one of its name, or of the name that
    `renamed` gives it; a predicted class without a counterpart counts as the first one, the background.

    Raises UsageError for names that don't exist, and where a class of the truth, the background aside, can't be predicted at
    all: its score would say nothing of the network.
    """
    names, found_names = [spec.name for spec in truth], [spec.name for spec in predicted]
    for old, new in renamed.items():
        if old not in found_names or new not in names:
            raise UsageError(
                f"class map '{old}={new}': it takes a class of the bundle ({', '.join(found_names)}) "
                f"to a class of the data set ({', '.join(names)})"
            )
    targets = [renamed.get(name, name) for name in found_names]
    unseen = [name for name in names[1:] if name not in targets and name not in ignored]
    if unseen:
        raise UsageError(
            f"the bundle has no class for {', '.join(unseen)}: map its classes with --map BUNDLE=DATA, leave classes out "
            "with --ignore, or score the union of the instruments with --union"
        )
    known = _table(range(len(names)))
    known[_numbers(truth, ignored)] = IGNORE
    return ClassMap(tuple(truth), known, _table([names.index(name) if name in names else 0 for name in targets]))


class RelabelledDataset:
    """A data set whose labels are taken to codes of other `classes` by a table uint8 (256,)."""

    def __init__(self, dataset: LabelledDataset, table: Table, classes: Sequence[ClassSpec]) -> None:
        self.dataset, self.table = dataset, table
        self.name, self.classes = dataset.name, tuple(classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return Sample(sample.image, self.table[sample.labels], sample.sequence)

    def sequence(self, index: int) -> str:
        """The sequence of a sample."""
        return self.dataset.sequence(index)

    def clip(self, index: int) -> str:
        """The clip of a sample."""
        return self.dataset.clip(index)


def with_partial_labels(
    dataset: LabelledDataset, classes: Sequence[ClassSpec], ignored: Collection[str] = ()
) -> RelabelledDataset:
    """The set with partial labels, which fit any list of `classes`: some instrument, or none; nothing of `ignored` classes."""
    codes = [INSTRUMENT if spec.kind == "instrument" else NOT_INSTRUMENT for spec in dataset.classes]
    table = _table(codes)
    table[_numbers(dataset.classes, ignored)] = IGNORE
    return RelabelledDataset(dataset, table, classes)


def with_classes(
    dataset: LabelledDataset, classes: Sequence[ClassSpec], ignored: Collection[str] = ()
) -> RelabelledDataset:
    """The set in the numbers of `classes`, by name; nothing is told of `ignored` classes.

    Raises UsageError where a class of the set is neither among `classes` nor ignored.
    """
    names = [spec.name for spec in classes]
    strange = [spec.name for spec in dataset.classes if spec.name not in (*names, *ignored)]
    if strange:
        raise UsageError(
            f"{dataset.name} has classes that are not trained ({', '.join(strange)}): those are {', '.join(names)}; "
            "leave them out with ignore=NAME,NAME, or learn instrument or not from the set with labels=instrument"
        )
    table = _table([names.index(spec.name) if spec.name in names else IGNORE for spec in dataset.classes])
    table[_numbers(dataset.classes, ignored)] = IGNORE
    return RelabelledDataset(dataset, table, classes)


def _table(values: Sequence[int]) -> Table:
    """A table that takes 0, 1, ... to `values`, and every other label to IGNORE."""
    table = np.full(256, IGNORE, np.uint8)
    table[: len(values)] = values
    return table


def _numbers(classes: Sequence[ClassSpec], names: Collection[str]) -> list[int]:
    known = [spec.name for spec in classes]
    for name in names:
        if name not in known:
            raise UsageError(f"the data set has no class '{name}' to ignore: one of {', '.join(known)}")
    return [known.index(name) for name in names]
