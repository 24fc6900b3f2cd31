"""Scoring a predictor on a data set: every frame in its order, as the pipeline would see it."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.augmentation.common_corruptions.kinds import corrupted
from cliprl.models.data.image_mask_dataset import Labelled
from cliprl.models.data.label_mapping import ClassMap
from cliprl.models.data.sample import IGNORE, Image, Sample
from cliprl.models.evaluation.scoring.evaluator import Evaluator
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import inside_cells, map_points, network_to_frame
from cliprl.pipeline.overlay.upsample import labels_at_frame


class Segments(Protocol):
    """A predictor: `see` takes the next picture of a clip, `reset` starts another clip."""

    def see(self, picture: Image) -> Segmentation:
        """Segment a picture, uint8 (H, W, 3) RGB."""
        ...

    def reset(self) -> None:
        """Forget the last clip."""
        ...


@dataclass(frozen=True, slots=True)
class Corruption:
    """What is done to the pictures before they are seen; severity 0 is nothing. `seed` draws its noise, frame by frame."""

    kind: str = "clean"
    severity: int = 0
    seed: int = 0

    def apply(self, picture: Image, index: int) -> Image:
        """The picture of sample `index` as it is seen."""
        if not self.severity:
            return picture
        return corrupted(picture, self.kind, self.severity, np.random.default_rng((self.seed, index)))


@dataclass(order=True, slots=True)
class ScoredFrame:
    """A frame with what was seen in it; frames compare by how badly they went."""

    badness: float
    index: int
    picture: Image = field(compare=False)
    truth: Image = field(compare=False)
    found: Image = field(compare=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one run over a data set, and its worst frames, the worst first."""

    corruption: Corruption
    book: Evaluator
    worst: list[ScoredFrame]


def evaluate(
    predictor: Segments,
    data: Labelled,
    classes: ClassMap,
    *,
    corruption: Corruption,
    indices: list[int],
    tolerance: float,
    keep_worst: int,
    progress: Callable[[], None],
) -> Evaluation:
    """Score the samples `indices` of `data`, in that order; `keep_worst` of them are kept as pictures.

    Predictions are compared with the truth at the truth's own size. The temporal prior goes from frame to frame of a clip;
    flow, where flicker is measured along it, is that of the pictures before they were corrupted.
    """
    book = Evaluator(classes.classes, tolerance)
    worst: list[ScoredFrame] = []
    for index, sample, fresh in samples(data, indices):
        if fresh:
            predictor.reset()
        picture = corruption.apply(sample.image, index)
        segmentation = predictor.see(picture)
        truth = classes.truth[sample.labels]
        found = classes.found[labels_at_frame(segmentation, *truth.shape)]
        score = book.add(truth, found, sample.sequence)
        book.add_confidence(*confidence(segmentation, truth, classes), sample.sequence)
        book.add_motion(sample.image, found, data.clip(index), sample.sequence)
        heapq.heappush(worst, ScoredFrame(1 - score, index, picture, truth, found))
        if len(worst) > keep_worst:
            heapq.heappop(worst)
        progress()
    return Evaluation(corruption, book, sorted(worst, reverse=True))


def samples(data: Labelled, indices: list[int]) -> Iterator[tuple[int, Sample, bool]]:
    """Each sample, and whether a clip begins with it."""
    clip = None
    for index in indices:
        yield index, data[index], data.clip(index) != clip
        clip = data.clip(index)


def confidence(
    segmentation: Segmentation, truth: Image, classes: ClassMap
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """How sure the network was of each cell's class, and whether the truth at the cell's centre says so: (n,) each.

    Of a scored class that several of the network's make up, their probabilities add up. Cells outside the endoscope's
    picture, and where nothing is known, are left out.
    """
    view, cells = segmentation.view, segmentation.labels.shape
    found = classes.found[segmentation.labels]
    members = classes.found[: len(segmentation.probabilities)]
    sure = np.zeros(cells, np.float32)
    for label in np.unique(found):
        here = found == label
        sure[here] = segmentation.probabilities[members == label].sum(0)[here]
    y, x = np.mgrid[: cells[0], : cells[1]] + 0.5
    stride = (view.network_width / cells[1], view.network_height / cells[0])
    place = map_points(network_to_frame(view), np.stack([x * stride[0], y * stride[1]], axis=-1)).astype(np.intp)
    column, row = (np.clip(place[..., i], 0, n - 1) for i, n in ((0, truth.shape[1]), (1, truth.shape[0])))
    there = truth[row, column]
    known = inside_cells(view, *cells) & (there != IGNORE)
    return sure[known], (there == found)[known]


def draw(seen: ScoredFrame, colors: list[tuple[int, int, int]]) -> Image:
    """The picture beside its truth and beside what was found, both painted over it: uint8 (H, 3 W, 3) RGB.

    Where nothing is known the truth is checked in grey.
    """
    table = np.full((256, 3), 128, np.uint8)
    table[: len(colors)] = colors
    panels = [seen.picture]
    for labels in (seen.truth, seen.found):
        mixed = cv2.addWeighted(seen.picture, 0.45, table[labels], 0.55, 0).astype(np.uint8)
        panels.append(np.where((labels > 0)[..., None], mixed, seen.picture))
    return np.hstack(panels)
