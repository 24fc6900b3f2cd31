"""Score each frame of a data set before and after refinement, in one run of the pipeline's segmenter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_to_instrument
from cliprl.models.data.sample import IGNORE, Image
from cliprl.models.evaluation.evaluation import iterate_samples
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring.calibration import BINS
from cliprl.models.evaluation.scoring.confusion_counts import Pixels
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import inside_cells, map_points, network_to_frame
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.doubt import mask_statistics
from cliprl.pipeline.segment.segmenter import segmentation_of


@dataclass(frozen=True, slots=True)
class FrameScores:
    """Scores of N frames, instrument or not; "base" is without and "refined" with refinement.

    base, refined: int64 (N, 3), pixels of the intersection with the truth, of the union, and called instrument falsely.
    known: int64 (N,), pixels with a known label. steps: int64 (N,), refinement steps. confidence: float64 (N,), of the frame.
    statistics: float64 (N, 7), the `MASK_STATISTICS` of the refined mask (see `cliprl.pipeline.segment.doubt`).
    calibration: float64 (N, BINS, 2), of cells that are called instrument: sum of probability minus correctness, and count.
    consecutive: int64 (N, 4), cells of the intersection and union with the last frame of the clip: base, then refined.
    clips, sequences: str (N,).
    """

    base: Pixels
    refined: Pixels
    known: Pixels
    steps: Pixels
    confidence: NDArray[np.float64]
    statistics: NDArray[np.float64]
    calibration: NDArray[np.float64]
    consecutive: Pixels
    clips: NDArray[np.str_]
    sequences: NDArray[np.str_]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the fields by name, for a file of NumPy."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class BaseCapture(ImageSegmenter):
    """A segmenter that keeps the result before refinement in `base`."""

    base: Segmentation

    def refine(self, context: FrameContext) -> None:
        """Keep the base's result, then refine."""
        self.base = segmentation_of(context.logits[0], context.view, 0, 0.0)
        super().refine(context)


def score_frames(
    bundle: Bundle,
    data: LabelledDataset,
    ignored: Sequence[str] = (),
    every: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FrameScores:
    """Score each `every`-th frame in order at the size of its truth, in f32 on one CPU thread.

    The prior goes from scored frame to scored frame of a clip.
    `progress` is called with the number of scored frames and their total.
    """
    segmenter = BaseCapture(bundle, precision="f32", threads=1)
    classes = map_to_instrument(data.classes, bundle.manifest.classes, ignored)
    is_instrument = classes.predicted == 1
    rows: list[tuple[object, ...]] = []
    last: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    for index, sample, fresh in iterate_samples(data, list(range(0, len(data), every))):
        if fresh:
            segmenter.reset()
            last = None
        after = segmenter.segment(sample.image)
        before, truth = segmenter.base, classes.truth[sample.labels]
        masks = is_instrument[before.labels], is_instrument[after.labels]
        rows.append(
            (
                *(_pixels(is_instrument[labels_at_frame(one, *truth.shape)], truth) for one in (before, after)),
                int((truth != IGNORE).sum()),
                after.steps,
                after.confidence,
                mask_statistics(after, bundle.manifest.classes),
                _calibration(after, truth, is_instrument),
                _consecutive(masks, last),
                data.clip(index),
                sample.sequence,
            )
        )
        last = masks
        progress(len(rows), -(-len(data) // every))
    return FrameScores(*(np.array(column) for column in zip(*rows, strict=True)))


def _pixels(mask: NDArray[np.bool_], truth: Image) -> list[int]:
    known, there = truth != IGNORE, truth == 1
    return [int((mask & there).sum()), int(((mask | there) & known).sum()), int((mask & known & ~there).sum())]


def _calibration(found: Segmentation, truth: Image, is_instrument: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return sums (BINS, 2) over the cells called instrument, by their probability of being an instrument."""
    rows, columns = found.labels.shape
    view = found.view
    y, x = np.mgrid[:rows, :columns] + 0.5
    points = np.stack([x * view.network_width / columns, y * view.network_height / rows], axis=-1)
    place = map_points(network_to_frame(view), points).astype(np.intp)
    across, down = (np.clip(place[..., i], 0, n - 1) for i, n in ((0, truth.shape[1]), (1, truth.shape[0])))
    there = truth[down, across]
    members = is_instrument[: len(found.probabilities)]
    chosen = inside_cells(view, rows, columns) & (there != IGNORE) & is_instrument[found.labels]
    sure = found.probabilities[members].sum(0)[chosen].astype(np.float64)
    bins = np.clip((sure * BINS).astype(np.intp), 0, BINS - 1)
    excess = np.bincount(bins, sure - (there[chosen] == 1), BINS)
    return np.stack([excess, np.bincount(bins, minlength=BINS)], axis=-1)


def _consecutive(
    now: tuple[NDArray[np.bool_], NDArray[np.bool_]], last: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None
) -> list[int]:
    if last is None:
        return [0] * 4
    return [
        int(value) for one, other in zip(now, last, strict=True) for value in ((one & other).sum(), (one | other).sum())
    ]
