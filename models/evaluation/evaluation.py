"""Score a predictor on a data set, frame by frame in order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.models.data.augmentation.common_corruptions.kinds import apply_common_corruption
from cliprl.models.data.image_mask_dataset import LabelledDataset, sample_name
from cliprl.models.data.label_mapping import ClassMap
from cliprl.models.data.sample import IGNORE, Image, Sample
from cliprl.models.evaluation.scoring.evaluator import Evaluator
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import Viewport, inside_cells
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.view.grid_warp import cell_centers


class Predictor(Protocol):
    """A predictor: `segment` takes the next image of a clip, `reset` starts another clip."""

    def segment(self, image: Image) -> Segmentation:
        """Segment an image, uint8 (H, W, 3) RGB."""

    def reset(self) -> None:
        """Discard the state of the last clip."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """A corruption of the test images; severity 0 is none. `seed` seeds its noise, frame by frame."""

    kind: str = "clean"
    severity: int = 0
    seed: int = 0

    def apply(self, image: Image, index: int) -> Image:
        """Return the corrupted image of sample `index`."""
        if not self.severity:
            return image
        return apply_common_corruption(image, self.kind, self.severity, np.random.default_rng((self.seed, index)))


@dataclass(order=True, slots=True)
class ScoredFrame:
    """A frame with its truth and prediction; frames are ordered by `error`."""

    error: float
    index: int
    name: str = field(compare=False)
    image: Image = field(compare=False)
    truth: Image = field(compare=False)
    predicted: Image = field(compare=False)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of one run over a data set, and its worst frames by IoU and by false area, the worst first."""

    corruption: Corruption
    evaluator: Evaluator
    worst: list[ScoredFrame]
    worst_false: list[ScoredFrame]


def evaluate(
    predictor: Predictor,
    data: LabelledDataset,
    classes: ClassMap,
    *,
    corruption: Corruption,
    indices: list[int],
    tolerance: float,
    keep_worst: int,
    progress: Callable[[], None],
) -> Evaluation:
    """Score the samples `indices` of `data`, in that order; the `keep_worst` worst are kept as images.

    Predictions are compared with the truth at the truth's own size. The temporal prior goes from frame to frame of a clip;
    optical flow is that of the images without corruption.
    """
    evaluator = Evaluator(classes.classes, tolerance)
    worst: list[ScoredFrame] = []
    worst_false: list[ScoredFrame] = []
    for index, sample, _ in iterate_samples(data, indices, predictor.reset):
        image = corruption.apply(sample.image, index)
        segmentation = predictor.segment(image)
        truth = classes.truth[sample.labels]
        predicted = classes.scored(labels_at_frame(segmentation, *truth.shape), truth)
        score = evaluator.add(truth, predicted, sample.sequence)
        evaluator.add_confidence(*cell_confidence(segmentation, truth, classes), sample.sequence)
        evaluator.add_motion(sample.image, predicted, data.clip(index), sample.sequence)
        name = sample_name(data, index)
        for heap, error in ((worst, 1 - score), (worst_false, evaluator.false_area())):
            heapq.heappush(heap, ScoredFrame(error, index, name, image, truth, predicted))
            if len(heap) > keep_worst:
                heapq.heappop(heap)
        progress()
    false_first = [frame for frame in sorted(worst_false, reverse=True) if frame.error]
    return Evaluation(corruption, evaluator, sorted(worst, reverse=True), false_first)


def iterate_samples(
    data: LabelledDataset, indices: Iterable[int], reset: Callable[[], None]
) -> Iterator[tuple[int, Sample, bool]]:
    """Yield each index, its sample, and whether it begins a clip; then `reset` is called before."""
    clip = None
    for index in indices:
        fresh, clip = data.clip(index) != clip, data.clip(index)
        if fresh:
            reset()
        yield index, data[index], fresh


def labels_on_grid(labels: Image, view: Viewport, grid: tuple[int, ...]) -> Image:
    """Return the label at the center of each cell of a grid over the network input; 0 outside the frame: uint8 (h, w)."""
    rows, columns = grid
    x, y = np.moveaxis(np.floor(cell_centers(view, rows, columns)).astype(np.intp), -1, 0)
    inside = (x >= 0) & (y >= 0) & (x < labels.shape[1]) & (y < labels.shape[0])
    found = labels[np.clip(y, 0, len(labels) - 1), np.clip(x, 0, labels.shape[1] - 1)]
    return np.where(inside, found, 0).astype(np.uint8)


def cell_confidence(
    segmentation: Segmentation, truth: Image, classes: ClassMap
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the confidence of each cell's class, and whether it is the truth at the cell's center: (n,) each.

    Probabilities, calibrated if the bundle has a calibration, of classes that are scored as one add up. Cells outside the field
    of view and unknown ones are left out, and those of an instrument of an unknown part.
    """
    view, cells = segmentation.view, segmentation.labels.shape
    predicted = classes.predicted[segmentation.labels]
    members = classes.predicted[: len(segmentation.probabilities)]
    sure, probabilities = np.zeros(cells, np.float32), segmentation.calibrated()
    for label in np.unique(predicted):
        here = predicted == label
        sure[here] = probabilities[members == label].sum(0)[here]
    there = labels_on_grid(truth, view, cells)
    known = inside_cells(view, *cells) & (there != IGNORE) & ~classes.unsure_at(there)
    return sure[known], (there == predicted)[known]


def draw_comparison(seen: ScoredFrame, colors: list[tuple[int, int, int]]) -> Image:
    """Return the image beside its truth and its prediction as overlays: uint8 (H, 3 W, 3) RGB; unknown pixels are gray."""
    table = np.full((256, 3), 128, np.uint8)
    table[: len(colors)] = colors
    panels = [seen.image]
    for labels in (seen.truth, seen.predicted):
        mixed = cv2.addWeighted(seen.image, 0.45, table[labels], 0.55, 0).astype(np.uint8)
        panels.append(np.where((labels > 0)[..., None], mixed, seen.image))
    return np.hstack(panels)
