"""Data sets of image and mask files: paired when opened, read on access."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable
from unicodedata import normalize

from cliprl.engines import ClassSpec, CliprlError, UsageError
from cliprl.models.data.io import check_size, labels_from_values, read_image, read_mask
from cliprl.models.data.sample import Image, Sample


class LabelledDataset(Protocol):
    """A `Dataset` whose labels are indices into `classes` (or IGNORE), with sequence and clip names that need no reading.

    `sequence` is the unit of a split: a video or a procedure. Frames of one `clip` are consecutive.
    """

    name: str
    classes: tuple[ClassSpec, ...]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample."""

    def clip(self, index: int) -> str:
        """Return the clip of a sample: its sequence, in a data set that does not define clips."""
        return self.sequence(index)


@dataclass(frozen=True, slots=True)
class ImageMaskPair:
    """An image and its masks: one, or one for each instrument."""

    image: Path
    masks: tuple[Path, ...]
    sequence: str
    clip: str


class ImageMaskDataset:
    """A data set of file pairs. `values` are the labels by the values of the masks; None: masks hold the labels themselves.

    Subclasses override `labels` where masks are of another form.
    """

    name: str
    classes: tuple[ClassSpec, ...]
    values: Mapping[int, int] | None = None

    def __init__(self, folder: Path, pairs: Sequence[ImageMaskPair], layout: str) -> None:
        """Raise UsageError if there are no pairs, or two copies of a frame; `layout` describes the expected files."""
        if not pairs:
            raise UsageError(f"no {self.name} frames in '{folder}': it must hold {layout}")
        self.pairs = tuple(pairs)
        files: dict[tuple[str, str], Path] = {}
        for pair in pairs:
            first = files.setdefault((pair.clip, pair.image.stem), pair.image)
            if first != pair.image:
                raise UsageError(
                    f"{first} and {pair.image} are one frame of {pair.clip}, which would count twice: move one copy away, or "
                    "give the folder of the other"
                )

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image, labels = self.image(pair), self.labels(pair)
        check_size(image, labels, pair.image, pair.masks[0])
        return Sample(image, labels, pair.sequence)

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample."""
        return self.pairs[index].sequence

    def clip(self, index: int) -> str:
        """Return the clip of a sample."""
        return self.pairs[index].clip

    def image_file(self, index: int) -> Path:
        """Return the file of a sample's image."""
        return self.pairs[index].image

    def image(self, pair: ImageMaskPair) -> Image:
        """Return the image, uint8 (H, W, 3) RGB."""
        return read_image(pair.image)

    def labels(self, pair: ImageMaskPair) -> Image:
        """Return the labels, uint8 (H, W)."""
        (mask,) = pair.masks
        return labels_from_values(
            read_mask(mask), self.values or {number: number for number in range(len(self.classes))}, mask
        )


class DatasetView:
    """Another form of a data set, frame by frame: subclasses give the samples."""

    def __init__(self, dataset: LabelledDataset, classes: Sequence[ClassSpec]) -> None:
        self.dataset, self.name, self.classes = dataset, dataset.name, tuple(classes)

    def __len__(self) -> int:
        return len(self.dataset)

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample."""
        return self.dataset.sequence(index)

    def clip(self, index: int) -> str:
        """Return the clip of a sample."""
        return self.dataset.clip(index)


class SelectedFrames:
    """Chosen frames of data sets that have the same classes: `places` are pairs of a data set and an index in it."""

    def __init__(self, places: Sequence[tuple[LabelledDataset, int]]) -> None:
        self.places = tuple(places)
        self.name, self.classes = self.places[0][0].name, self.places[0][0].classes

    @staticmethod
    def join(datasets: Iterable[LabelledDataset]) -> SelectedFrames:
        """Return all frames of the data sets in order."""
        return SelectedFrames([(dataset, index) for dataset in datasets for index in range(len(dataset))])

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        dataset, place = self.places[index]
        return dataset[place]

    def sequence(self, index: int) -> str:
        """Return the sequence of a sample."""
        dataset, place = self.places[index]
        return dataset.sequence(place)

    def clip(self, index: int) -> str:
        """Return the clip of a sample."""
        dataset, place = self.places[index]
        return dataset.clip(place)


class Subset(SelectedFrames):
    """Some sequences of a data set. Raises UsageError if one is missing, because the split would be incomplete."""

    def __init__(self, dataset: LabelledDataset, sequences: Collection[str]) -> None:
        there = sequence_names(dataset)
        missing = [name for name in sequences if name not in there]
        if missing or not sequences:
            raise UsageError(
                f"the split asks for {', '.join(missing) or 'nothing'}, which this copy of {dataset.name} has not: "
                f"it has {', '.join(there)}"
            )
        super().__init__([(dataset, i) for i in range(len(dataset)) if dataset.sequence(i) in sequences])


@runtime_checkable
class HasImageFiles(Protocol):
    """A data set of image files."""

    def image_file(self, index: int) -> Path:
        """Return the file of a sample's image."""


def image_file(dataset: LabelledDataset, index: int) -> Path | None:
    """Return the file of a sample's image, also of a selection or a view of a data set; None if it is no file."""
    if isinstance(dataset, SelectedFrames):
        return image_file(*dataset.places[index])
    if isinstance(dataset, HasImageFiles):
        return dataset.image_file(index)
    view: LabelledDataset | None = getattr(dataset, "dataset", None)
    return image_file(view, index) if view is not None else None


def left_out_note(dataset: LabelledDataset) -> str:
    """Return a note on the frames of a label file that are left out for want of annotations; "" without any.

    Of a selection, the note is on the whole file.
    """
    if isinstance(dataset, SelectedFrames):
        return left_out_note(dataset.places[0][0])
    count = getattr(dataset, "left_out", 0)
    if not count:
        return ""
    return (
        f"note: {count} frames of {dataset.name} have no annotation and are left out: if they were looked through and show none "
        "of the classes, give 'LABELS?empty=keep'"
    )


def sample_name(dataset: LabelledDataset, index: int) -> str:
    """Return the name of a sample's image file, or its sequence and index if it is no file."""
    path = image_file(dataset, index)
    return path.name if path else f"{dataset.sequence(index)} {index}"


@runtime_checkable
class HasInstanceIds(Protocol):
    """A data set that numbers the instruments."""

    def instance_ids(self, index: int) -> Image | None:
        """Return the instrument at each pixel, uint8 (H, W), from 1, 0 for none; None if a sample has no numbers."""


def instance_ids(dataset: LabelledDataset, index: int) -> Image | None:
    """Return the instrument at each pixel of a sample, uint8 (H, W), 0 for none; None if its data set does not number them."""
    if isinstance(dataset, SelectedFrames):
        return instance_ids(*dataset.places[index])
    return dataset.instance_ids(index) if isinstance(dataset, HasInstanceIds) else None


def sequence_names(dataset: LabelledDataset) -> list[str]:
    """Return the names of the sequences of a data set, in order."""
    return list(dict.fromkeys(dataset.sequence(i) for i in range(len(dataset))))


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a key that sorts frame_2 before frame_10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def _by_stem(paths: Iterable[Path], ending: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(path for path in paths if not path.name.startswith(".")):
        stem = normalize("NFC", path.stem).removesuffix(ending)  # macOS writes accents apart from their letters
        if stem in found:
            raise CliprlError(f"{found[stem]} and {path} have one name without their suffixes: remove one of them")
        found[stem] = path
    return found


def pair_by_name(
    images: Iterable[Path], masks: Iterable[Path], image_ending: str = "", mask_ending: str = ""
) -> list[tuple[Path, Path]]:
    """Pair images and masks of the same name, in natural order, without the given endings before their suffix.

    Raises CliprlError for an image without a mask, a mask without an image, and two files of one name.
    """
    of_image, of_mask = _by_stem(images, image_ending), _by_stem(masks, mask_ending)
    for here, there, word in ((of_image, of_mask, "mask"), (of_mask, of_image, "image")):
        lone = [path for stem, path in here.items() if stem not in there]
        if lone:
            more = f", nor do {len(lone) - 1} more beside it" if len(lone) > 1 else ""
            strange = [path for stem, path in there.items() if stem not in here]
            remedy = f"give both one name, unlike {min(strange).name}" if strange else "copy the whole set again"
            if not there:
                remedy = "masks have the same names, as PNG" if word == "mask" else "images have the same names"
            raise CliprlError(f"{min(lone)} has no {word}{more}: {remedy}")
    return [(of_image[stem], of_mask[stem]) for stem in sorted(of_image, key=lambda stem: natural_order(Path(stem)))]


@runtime_checkable
class CaptionDataset(LabelledDataset, Protocol):
    """A data set whose images have captions."""

    def caption(self, index: int) -> str:
        """Return the caption of an image."""


class SelectedCaptions(SelectedFrames):
    """Chosen frames of data sets with captions."""

    def caption(self, index: int) -> str:
        """Return the caption of a sample."""
        dataset, place = self.places[index]
        assert isinstance(dataset, CaptionDataset)
        return dataset.caption(place)
