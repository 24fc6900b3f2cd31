"""Map labels between class lists: from predictions to the classes of a test set, and between training sets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.bundle.manifest import UNSURE_PART
from cliprl.models.data.image_mask_dataset import DatasetView, LabelledDataset
from cliprl.models.data.sample import IGNORE, INSTRUMENT, NOT_INSTRUMENT, Sample, instrument_classes

Table = NDArray[np.uint8]
# The name of the first class of a data set of annotations: pixels without any.
UNLABELLED = "unlabelled"
UNION_CLASSES = (
    ClassSpec("not-instrument", (0, 0, 0), "background"),
    ClassSpec("instrument", (0, 255, 0), "instrument"),
)


@dataclass(frozen=True, slots=True)
class ClassMap:
    """The scored classes, and tables uint8 (256,) that map truth labels and predicted labels to them.

    `unsure`: the table of predicted labels where the truth is an instrument of an unknown part (`UNSURE_PART`): any instrument
    is right there. None: the truth names every part.
    """

    classes: tuple[ClassSpec, ...]
    truth: Table
    predicted: Table
    unsure: Table | None = None

    def unsure_at(self, truth: Table) -> NDArray[np.bool_]:
        """Return where scored truth labels, of any shape, are an instrument of an unknown part."""
        if self.unsure is None:
            return np.zeros(truth.shape, bool)
        return np.equal(truth, [spec.name for spec in self.classes].index(UNSURE_PART))

    def scored(self, labels: Table, truth: Table) -> Table:
        """Return the scored classes of predicted labels where the scored truth labels, of the same shape, are these."""
        found = self.predicted[labels]
        return found if self.unsure is None else np.where(self.unsure_at(truth), self.unsure[labels], found)


def map_to_instrument(truth: Sequence[ClassSpec], predicted: Sequence[ClassSpec], ignored: Collection[str]) -> ClassMap:
    """Map the classes of both sides to instrument or not, by their kind. `ignored` truth classes do not count."""
    tables = [_table([int(spec.kind == "instrument") for spec in side]) for side in (truth, predicted)]
    tables[0][[INSTRUMENT, NOT_INSTRUMENT]] = 1, 0
    tables[0][_numbers(truth, ignored)] = IGNORE
    return ClassMap(UNION_CLASSES, *tables)


def map_by_name(
    truth: Sequence[ClassSpec], predicted: Sequence[ClassSpec], renamed: Mapping[str, str], ignored: Collection[str]
) -> ClassMap:
    """Map predicted classes to the truth's classes of the same name, or of the name that `renamed` gives.

    A predicted class without a counterpart counts as the first class, the background; `ignored` truth classes do not count.
    If the truth alone has the class "instrument" (`UNSURE_PART`), a predicted instrument without a counterpart counts as that
    one, and any instrument is right where the truth is.
    Raises UsageError for unknown names, and if a truth class other than the background has no predicted class.
    """
    numbers, found_names = {spec.name: i for i, spec in enumerate(truth)}, [spec.name for spec in predicted]
    for old, new in renamed.items():
        if old not in found_names or new not in numbers:
            raise UsageError(
                f"class map '{old}={new}': it takes a class of the bundle ({', '.join(found_names)}) "
                f"to a class of the data set ({', '.join(numbers)})"
            )
    targets = [renamed.get(name, name) for name in found_names]
    instruments = instrument_classes(predicted)
    partial = numbers.get(UNSURE_PART, 0) > 0 and UNSURE_PART not in (*targets, *ignored) and instruments.any()
    _check_covered(list(numbers)[1:], {*targets, *ignored, *([UNSURE_PART] if partial else [])}, found_names)
    # What a predicted class counts as that has no counterpart: the background, or the instrument of an unknown part.
    others = [numbers[UNSURE_PART] if partial and here else 0 for here in instruments]
    found = [numbers.get(name, other) for name, other in zip(targets, others, strict=True)]
    unsure = _table([other or number for number, other in zip(found, others, strict=True)]) if partial else None
    known = _table(range(len(truth)))
    known[_numbers(truth, ignored)] = IGNORE
    return ClassMap(tuple(truth), known, _table(found), unsure)


def _check_covered(names: Sequence[str], covered: Collection[str], found_names: Sequence[str]) -> None:
    """Raise UsageError if one of the truth's `names` is not `covered` by a predicted class or an option."""
    unseen = [name for name in names if name not in covered]
    if unseen:
        raise UsageError(
            f"the bundle has no class for {_with_nearest(unseen, found_names)}: map its classes with --map BUNDLE=DATA, "
            "leave classes out with --ignore, or score the union of the instruments with --union"
        )


class RelabelledDataset(DatasetView):
    """A data set whose labels are mapped to codes of other `classes` by a table uint8 (256,)."""

    def __init__(self, dataset: LabelledDataset, table: Table, classes: Sequence[ClassSpec]) -> None:
        super().__init__(dataset, classes)
        self.table = table

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        return Sample(sample.image, self.table[sample.labels], sample.sequence)


def with_partial_labels(
    dataset: LabelledDataset,
    classes: Sequence[ClassSpec],
    ignored: Collection[str] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> RelabelledDataset:
    """Return the data set with partial labels, instrument or not, for any list of `classes`; `ignored` classes become IGNORE.

    A class that `renamed` takes to one of `classes` has the label of that class. Raises UsageError for unknown names.
    """
    codes = [INSTRUMENT if spec.kind == "instrument" else NOT_INSTRUMENT for spec in dataset.classes]
    names, own = [spec.name for spec in classes], [spec.name for spec in dataset.classes]
    for old, new in renamed.items():
        if old not in own or new not in names:
            raise UsageError(
                f"map={old}:{new}: it takes a class of the data set ({', '.join(own)}) to a trained one ({', '.join(names)})"
            )
        codes[own.index(old)] = names.index(new)
    table = _table(codes)
    table[_numbers(dataset.classes, ignored)] = IGNORE
    return RelabelledDataset(dataset, table, classes)


def with_classes(
    dataset: LabelledDataset, classes: Sequence[ClassSpec], ignored: Collection[str] = ()
) -> RelabelledDataset:
    """Return the data set with labels that index `classes`, by name; `ignored` classes become IGNORE.

    An instrument without a class for its part (`UNSURE_PART`, as masks of the pipeline have it) is labelled INSTRUMENT.
    Raises UsageError if a class of the data set is neither among `classes` nor ignored.
    """
    codes = {UNSURE_PART: INSTRUMENT} | {spec.name: i for i, spec in enumerate(classes)}
    names = [spec.name for spec in classes]
    strange = [spec.name for spec in dataset.classes if spec.name not in (*codes, *ignored, UNLABELLED)]
    if strange:
        raise UsageError(
            f"{dataset.name} has classes that are not trained ({_with_nearest(strange, names)}): those are {', '.join(names)}; "
            "leave them out with ignore=NAME,NAME, or learn instrument or not from the set with labels=instrument, "
            "and map=NAME:CLASS for each that is trained under another name"
        )
    table = _table([codes.get(spec.name, IGNORE) for spec in dataset.classes])
    table[_numbers(dataset.classes, ignored)] = IGNORE
    if dataset.classes[0].name == UNLABELLED:
        table[0] = _unlabelled_code(dataset.classes[1:], classes)
    return RelabelledDataset(dataset, table, classes)


def _unlabelled_code(labelled: Sequence[ClassSpec], classes: Sequence[ClassSpec]) -> int:
    """Return what a pixel without an annotation is, by the classes that were labelled.

    If all were: the background. If all instruments were: NOT_INSTRUMENT. Otherwise it may be any class: IGNORE.
    """
    names = {spec.name for spec in labelled}
    background = [i for i, spec in enumerate(classes) if spec.kind == "background"]
    if any(classes[i].name in names for i in background) or not background:
        return IGNORE
    if all(spec.name in names for spec in classes if spec.kind != "background"):
        return background[0]
    return NOT_INSTRUMENT if all(spec.name in names for spec in classes if spec.kind == "instrument") else IGNORE


def _with_nearest(strange: Sequence[str], names: Sequence[str]) -> str:
    """Return unknown names, each with the nearest known one."""
    near = [get_close_matches(name, names, 1) for name in strange]
    return ", ".join(f"{n}; did you mean {m[0]}?" if m else n for n, m in zip(strange, near, strict=True))


def _table(values: Sequence[int]) -> Table:
    """Return a table that maps 0, 1, ... to `values`, and every other label to IGNORE."""
    table = np.full(256, IGNORE, np.uint8)
    table[: len(values)] = values
    return table


def _numbers(classes: Sequence[ClassSpec], names: Collection[str]) -> list[int]:
    known = [spec.name for spec in classes]
    for name in names:
        if name not in known:
            raise UsageError(f"the data set has no class '{name}' to ignore: one of {', '.join(known)}")
    return [known.index(name) for name in names]
