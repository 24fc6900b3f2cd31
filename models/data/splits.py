"""Divide the sequences of a data set into training and test.

Neighboring frames are near copies of each other, so a split never divides a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import CliprlError, UsageError, explained
from cliprl.engines.bundle.bundle import file_hash
from cliprl.models.data.image_mask_dataset import LabelledDataset, Subset, image_file, sequence_names
from cliprl.models.data.io import read_image


def _refuse_shared(train: set[str], test: set[str]) -> None:
    shared = sorted(train & test)
    if shared:
        raise UsageError(
            f"{', '.join(shared)} would be trained on and tested on: give each sequence to one side of the split"
        )


@dataclass(frozen=True, slots=True)
class Split:
    """The training and the test sequences of a data set. Raises UsageError if a sequence is in both."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        _refuse_shared(set(self.train), set(self.test))

    @classmethod
    def of_numbers(cls, prefix: str, numbers: Sequence[int], test: Sequence[int]) -> Split:
        """Return the split of sequences `prefix`N that tests the numbers in `test` and trains the rest of `numbers`."""
        return cls(tuple(f"{prefix}{n}" for n in numbers if n not in test), tuple(f"{prefix}{n}" for n in test))


# The published splits by data set and name; `register_dataset` fills it.
SPLITS: dict[str, Mapping[str, Split]] = {}


def select_sequences(dataset: LabelledDataset, split: str) -> Subset:
    """Return the part of a data set that `split` names: "A" or "A:test", "A:train", or sequences, "D2,OP3".

    Raises UsageError for a split or sequence that the data set, or this copy of it, lacks.
    """
    name, _, side = split.partition(":")
    splits = SPLITS.get(dataset.name, {})
    if name in splits:
        if side not in ("", "train", "test"):
            raise UsageError(f"split '{split}' has no side '{side}': train or test")
        return Subset(dataset, splits[name].train if side == "train" else splits[name].test)
    chosen, there = split.split(","), sequence_names(dataset)
    if not set(chosen) <= set(there):
        known = f"a split ({', '.join(splits)}) or " if splits else ""
        raise UsageError(f"no split '{split}' of {dataset.name}: name {known}sequences of it ({', '.join(there)})")
    return Subset(dataset, chosen)


def check_disjoint(train: Sequence[LabelledDataset], test: Sequence[LabelledDataset]) -> None:
    """Raise UsageError if a sequence of a training set is also one of a test set, under any data set's name.

    A composition has the sequences of the data sets that it is made of.
    """
    _refuse_shared(*(set[str]().union(*map(_full_names, part)) for part in (train, test)))


def refuse_copies(train: Sequence[LabelledDataset], test: Sequence[LabelledDataset]) -> None:
    """Raise UsageError if an image file of test data is also one of training data, or a copy of one, whatever its name.

    A copy that was saved anew is not found. Images of one color, as at the beginning of videos, do not count.
    """
    trained, tested = (_file_sizes(set[Path]().union(*map(_image_files, part))) for part in (train, test))
    # Only files of one size can be copies: few are read.
    sizes = set(trained.values()) & set(tested.values())
    known = {_content_hash(path): path for path, size in trained.items() if size in sizes}
    for path in sorted(path for path, size in tested.items() if size in sizes):
        original = known.get(_content_hash(path))
        if original and ((image := read_image(path)) != image[0, 0]).any():
            what = "is" if original == path else f"is a copy of {original}, and"
            raise UsageError(f"{path} {what} trained on and tested on: give it to one side, once")


def _file_sizes(paths: Set[Path]) -> dict[Path, int]:
    """Return the sizes in bytes of regular files; others, such as links to nothing, are named by the error of reading them."""
    return {path: path.stat().st_size for path in paths if path.is_file()}


def _content_hash(path: Path) -> str:
    with explained(f"{path} can't be read", "mend its permissions or copy it again", CliprlError):
        return file_hash(path)


def _image_files(dataset: LabelledDataset) -> set[Path]:
    """Return the image files of a data set, and those that its images are composed of."""
    found = {path for index in range(len(dataset)) if (path := image_file(dataset, index))}
    return found.union(*map(_image_files, _sources(dataset)))


def _full_names(dataset: LabelledDataset) -> set[str]:
    """Return the full names of a data set's sequences, and of those that its images are composed of."""
    below = [_full_names(source) for source in _sources(dataset)]
    return {_full_name(dataset, name) for name in sequence_names(dataset)}.union(*below)


def _sources(dataset: object) -> list[LabelledDataset]:
    """Return the data sets of a composition, also where the data set is a view of one."""
    inner = {id(one): one for one, _ in getattr(dataset, "places", ())}.values()
    views = [*inner, *([dataset.dataset] if hasattr(dataset, "dataset") else [])]
    return [*getattr(dataset, "sources", ()), *(source for view in views for source in _sources(view))]


def _full_name(dataset: LabelledDataset, sequence: str) -> str:
    """Return a sequence's name, prefixed with the name of the data set it comes from."""
    return sequence if "/" in sequence else f"{dataset.name}/{sequence}"
