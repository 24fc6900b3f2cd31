"""Which sequences train and which test. Neighbouring frames are near copies, so nothing smaller than a sequence is split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cliprl.engines import UsageError
from cliprl.models.data.image_mask_dataset import Labelled, Subset, sequences_of


def _refuse_shared(train: set[str], test: set[str]) -> None:
    shared = sorted(train & test)
    if shared:
        raise UsageError(
            f"{', '.join(shared)} would be trained on and tested on: give each sequence to one side of the split"
        )


@dataclass(frozen=True, slots=True)
class Split:
    """The sequences of a data set that train, and those that test. Raises UsageError where one is in both."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        _refuse_shared(set(self.train), set(self.test))


def _fold(prefix: str, everything: Sequence[int], test: Sequence[int]) -> Split:
    train = tuple(f"{prefix}{n}" for n in everything if n not in test)
    return Split(train, tuple(f"{prefix}{n}" for n in test))


_SEQ_2018 = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16)
_CHOLEC_TEST = ("video37", "video48", "video55")
_CHOLEC_TRAIN = tuple(f"video{n:02d}" for n in (1, 9, 12, 17, 18, 20, 24, 25, 26, 27, 28, 35, 43, 52))

SPLITS: Mapping[str, Mapping[str, Split]] = {
    "endovis2018": {
        "A": _fold("seq_", _SEQ_2018, (2, 5, 9, 15)),
        "B": Split(tuple(f"seq_{n}" for n in _SEQ_2018), tuple(f"test-seq_{n}" for n in range(1, 5))),
    },
    "endovis2017": {
        f"fold{i}": _fold("instrument_dataset_", range(1, 9), test)
        for i, test in enumerate(((1, 3), (2, 5), (4, 8), (6, 7)))
    },
    "cholecseg8k": {"videos": Split(_CHOLEC_TRAIN, _CHOLEC_TEST)},
    "endovis2015": {
        "robotic": Split(("D1",), ("D2",)),
        "both": Split(("D1", "OP1"), ("D2", "OP3")),
    },
    "vocalfolds": {f"without-seq{n}": _fold("seq", (5, 6, 7, 8), (n,)) for n in (5, 6, 7, 8)},
}


def choose(dataset: Labelled, split: str) -> Subset:
    """The part of a data set that `split` names: "A" or "A:test", "A:train", or sequences, "D2,OP3".

    Raises UsageError for a split or sequence that the set, or this copy of it, has not.
    """
    name, _, side = split.partition(":")
    splits = SPLITS.get(dataset.name, {})
    if name in splits:
        if side not in ("", "train", "test"):
            raise UsageError(f"split '{split}' has no side '{side}': train or test")
        return Subset(dataset, splits[name].train if side == "train" else splits[name].test)
    chosen, there = split.split(","), sequences_of(dataset)
    if not set(chosen) <= set(there):
        known = f"a split ({', '.join(splits)}) or " if splits else ""
        raise UsageError(f"no split '{split}' of {dataset.name}: name {known}sequences of it ({', '.join(there)})")
    return Subset(dataset, chosen)


def check_apart(train: Sequence[Labelled], test: Sequence[Labelled]) -> None:
    """Raises UsageError where a sequence of any training set is one of any test set, also under another set's name."""
    _refuse_shared(*({_full(d, name) for d in part for name in sequences_of(d)} for part in (train, test)))


def _full(dataset: Labelled, sequence: str) -> str:
    """A sequence's name with its origin's before it."""
    return sequence if "/" in sequence else f"{dataset.name}/{sequence}"
