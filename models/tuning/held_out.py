"""Hold out blocks of consecutive frames: single frames at random would have near copies among the trained ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.data.image_mask_dataset import LabelledDataset, SelectedFrames, sample_name
from cliprl.models.data.sample import INSTRUMENT

# Each _EVERY-th block is held out, from the one at _FIRST on; a data set has about _BLOCKS of them, of at most _LONGEST frames.
_EVERY, _FIRST = 5, 2
_BLOCKS, _LONGEST = 10, 25
FEWEST_FRAMES = 5


def hold_out(dataset: LabelledDataset) -> tuple[SelectedFrames, SelectedFrames]:
    """Divide a data set into frames to train and frames that are held out.

    Blocks are runs of consecutive frames of one sequence. Frames of the same clip that border a held-out block are neither
    trained nor held out. Raises UsageError for too few frames.
    """
    if len(dataset) < FEWEST_FRAMES:
        raise UsageError(f"{dataset.name} has {len(dataset)} labelled frames: label at least {FEWEST_FRAMES}")
    blocks = _blocks(dataset, min(max(1, len(dataset) // _BLOCKS), _LONGEST))
    first = min(_FIRST, len(blocks) - 1)
    held = [index for block in blocks[first::_EVERY] for index in block]
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


def check_shown(held: SelectedFrames, classes: Sequence[ClassSpec]) -> None:
    """Raise UsageError if no held-out frame shows a labelled class but the background: no score would judge the training."""
    shown = [INSTRUMENT, *(number for number, spec in enumerate(classes) if spec.kind != "background")]
    if not any(np.isin(held[index].labels, shown).any() for index in range(len(held))):
        names = ", ".join(sample_name(held, index) for index in range(min(3, len(held))))
        raise UsageError(
            f"the {len(held)} held-out frames of {held.name} ({names}{', ...' * (len(held) > 3)}) show no labelled class but the "
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
