"""Open the data of tuning: labeled frames, old data that must not be forgotten, and the held-out parts of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.engines.bundle.reference_outputs import ImageBatch
from cliprl.engines.cache.user_cache import user_cache_folder
from cliprl.models.config.tune_config import OldDataConfig
from cliprl.models.data.image_mask_dataset import LabelledDataset, SelectedFrames, left_out_note
from cliprl.models.data.label_mapping import with_classes, with_partial_labels
from cliprl.models.data.registry import DatasetContext, check_line, lines_of_path, open_dataset, portable_lines
from cliprl.models.data.sample import INSTRUMENT, NOT_INSTRUMENT, evenly_spaced, instrument_classes
from cliprl.models.data.splits import refuse_copies
from cliprl.models.training.run_datasets import TRAIN_OPTIONS, TrainingDataset
from cliprl.models.tuning.comparison import HeldOutPart

# Each _EVERY-th block is held out, from the one at the first of _FIRSTS on, or the first at which they show something labelled.
# A data set has about _BLOCKS blocks, of at most _LONGEST frames.
_EVERY, _FIRSTS = 5, (2, 3, 4, 0, 1)
_BLOCKS, _LONGEST = 10, 25
FEWEST_FRAMES = 5


def hold_out(dataset: LabelledDataset, start: int = _FIRSTS[0]) -> tuple[SelectedFrames, SelectedFrames]:
    """Divide a data set into frames to train and frames that are held out, every fifth block from the one at `start` on.

    Blocks are runs of consecutive frames of one sequence. Frames of the same clip that border a held-out block are neither
    trained nor held out. Raises UsageError for too few frames.
    """
    if len(dataset) < FEWEST_FRAMES:
        raise UsageError(f"{dataset.name} has {len(dataset)} labelled frames: label at least {FEWEST_FRAMES}")
    blocks = _blocks(dataset, min(max(1, len(dataset) // _BLOCKS), _LONGEST))
    held = [index for block in blocks[min(start, len(blocks) - 1) :: _EVERY] for index in block]
    border = {
        near
        for index in held
        for near in (index - 1, index + 1)
        if 0 <= near < len(dataset) and dataset.clip(near) == dataset.clip(index)
    }
    trained = [index for index in range(len(dataset)) if index not in {*held, *border}]
    if not trained:
        raise UsageError(
            f"{dataset.name} has {len(dataset)} frames, all close to each other: label frames further apart"
        )
    chosen, rest = (SelectedFrames([(dataset, index) for index in part]) for part in (trained, held))
    return chosen, rest


def hold_out_shown(dataset: LabelledDataset, classes: Sequence[ClassSpec]) -> tuple[SelectedFrames, SelectedFrames]:
    """Divide a data set as `hold_out` does, so that both parts show a labelled class other than the background.

    Raises UsageError where they can't: no score would judge the training, or nothing would be learned.
    """
    shown = [INSTRUMENT, *(number for number, spec in enumerate(classes) if spec.kind != "background")]
    for start in _FIRSTS:
        parts = hold_out(dataset, start)
        if all(any(np.isin(part[index].labels, shown).any() for index in range(len(part))) for part in parts):
            return parts
    raise UsageError(
        f"of the {len(dataset)} frames of {dataset.name} none, or only a few beside each other, show a labelled class but the "
        "background, so that no score could judge the tuned bundle: label more frames, with instruments in them"
    )


def _blocks(dataset: LabelledDataset, length: int) -> list[list[int]]:
    blocks: list[list[int]] = []
    for index in range(len(dataset)):
        begins = index == 0 or dataset.sequence(index) != dataset.sequence(index - 1) or len(blocks[-1]) >= length
        if begins:
            blocks.append([])
        blocks[-1].append(index)
    return blocks


# Rendered scenes of old data; none is in the evaluation protocol or in the probe of the accuracy gate.
FIRST_SCENE, FIRST_TEST_SCENE = 700_000, 710_000
NEW, RENDERED = "held-out frames", "rendered scenes"


@dataclass(frozen=True, slots=True)
class TuningData:
    """The new frames, all of them and those to train; old data with its share; the held-out parts of both; notes on labels."""

    all_new: LabelledDataset
    new: LabelledDataset
    old: Sequence[tuple[LabelledDataset, float]]
    parts: Sequence[HeldOutPart]
    notes: Sequence[str] = ()

    def images(self, count: int, size: tuple[int, int]) -> ImageBatch:
        """Return up to `count` images of each side, spread over it, as uint8 (N, *size, 3): examples for calibration."""
        sides = [self.new, *(dataset for dataset, _ in self.old)]
        chosen = [side[index].image for side in sides for index in evenly_spaced(len(side), count)]
        return np.stack([cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in chosen]).astype(
            np.uint8
        )


def label_notes(given: Sequence[LabelledDataset], held: LabelledDataset, classes: Sequence[ClassSpec]) -> list[str]:
    """Return notes on frames of the label files that are left out, and on held-out labels that no instrument is denied by.

    With the latter no score falls where masks grow too large.
    """
    notes = [note for dataset in given if (note := left_out_note(dataset))]
    known = [NOT_INSTRUMENT, *np.flatnonzero(~instrument_classes(classes)).tolist()]
    if not any(np.isin(held[index].labels, known).any() for index in range(len(held))):
        notes.append(
            "note: no pixel is known to show no instrument, because not every instrument class of the bundle was labelled: the "
            "score of the held-out frames counts what is missed, not what is too much. If every instrument in view was labelled, "
            "give 'LABELS?labels=instrument'"
        )
    return notes


def open_tuning_data(
    labels: Sequence[str], classes: Sequence[ClassSpec], config: OldDataConfig, progress: Callable[[int, int], None]
) -> TuningData:
    """Open label files, folders or data set lines, and the old data. `progress` is called for each rendered scene.

    Raises UsageError for too few frames, for classes that the bundle lacks, and for held-out frames that show nothing labelled or
    that are trained on under another name, and the errors of the data sets.
    """
    lines = [line for text in labels for line in lines_of_path(text)]
    given = TrainingDataset.open(lines, DatasetContext())
    every = SelectedFrames.join([one.learned(classes) for one in given])
    new, held = hold_out_shown(every, classes)
    old, parts = open_old_data(classes, config, progress)
    parts = [HeldOutPart(NEW, held, new=True), *parts]
    refuse_copies([new, *(one for one, _ in old)], [part.data for part in parts])
    return TuningData(every, new, old, parts, label_notes([one.data for one in given], held, classes))


def open_old_data(
    classes: Sequence[ClassSpec], config: OldDataConfig, progress: Callable[[int, int], None]
) -> tuple[list[tuple[LabelledDataset, float]], list[HeldOutPart]]:
    """Open rendered scenes and the listed sets. Returns the data to learn with its shares, and the held-out parts."""
    cache = Path(config.cache) if config.cache else user_cache_folder("scenes")
    context = DatasetContext(
        Path(config.root), "data.root", cache, config.height, config.width, config.workers, progress
    )
    for text in config.sets:
        check_line(text, context, TRAIN_OPTIONS)
    old: list[tuple[LabelledDataset, float]] = []
    parts: list[HeldOutPart] = []
    has_instruments = bool(instrument_classes(classes).any())
    if has_instruments and config.scenes:
        old.append((_scenes(FIRST_SCENE, config.scenes, classes, config, context), 1.0))
    if has_instruments and config.test_scenes:
        scenes = _scenes(FIRST_TEST_SCENE, config.test_scenes, classes, config, context)
        parts.append(HeldOutPart(RENDERED, scenes, new=False))
    opened = TrainingDataset.open(config.sets, context) if config.sets else []
    for one, title in zip(opened, portable_lines(config.sets), strict=True):
        kept, tested = hold_out(one.learned(classes))
        old.append((kept, one.share))
        parts.append(HeldOutPart(title, tested, new=False))
    if not old:
        raise UsageError(
            "there is no old data, so that everything old would be forgotten: set data.scenes or data.sets"
        )
    return old, parts


def _scenes(
    first: int, count: int, classes: Sequence[ClassSpec], config: OldDataConfig, context: DatasetContext
) -> LabelledDataset:
    line = f"rendered:seeds={first}-{first + count - 1}&frames={config.frames}"
    return _for_classes(open_dataset(line, context=context), classes)


def _for_classes(dataset: LabelledDataset, classes: Sequence[ClassSpec]) -> LabelledDataset:
    """Return rendered scenes with labels for `classes`; for a bundle with other classes, instrument or not."""
    names = {spec.name for spec in classes}
    same = all(spec.name in names for spec in dataset.classes)
    return (with_classes if same else with_partial_labels)(dataset, classes)
