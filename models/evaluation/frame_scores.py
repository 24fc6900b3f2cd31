"""Score each frame of a data set before and after refinement, in one run of the pipeline's segmenter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, grid_scale
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.label_mapping import map_to_instrument
from cliprl.models.data.sample import IGNORE, Image
from cliprl.models.evaluation.evaluation import iterate_samples, labels_on_grid
from cliprl.models.evaluation.image_segmenter import ImageSegmenter
from cliprl.models.evaluation.scoring.confusion_counts import Pixels
from cliprl.pipeline.core.confidence import cell_inputs, color_statistics, frame_statistics, mean_probabilities
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import inside_cells
from cliprl.pipeline.overlay.upsample import labels_at_frame
from cliprl.pipeline.segment.decision import segmentation_of


@dataclass(frozen=True, slots=True)
class FrameScores:
    """Scores of N frames, instrument or not; "base" is without and "refined" with refinement.

    base, refined: int64 (N, 3), pixels of the intersection with the truth, of the union, and called instrument falsely.
    known: int64 (N,), pixels with a known label. steps: int64 (N,), refinement steps. confidence: float64 (N,), of the frame.
    statistics: float64 (N, 10), the `FRAME_STATISTICS` of the refined mask (see `cliprl.pipeline.core.confidence`).
    means: float64 (N, K), the mean probability of each class in the field of view. colors: float64 (N, 21), the
    `COLOR_STATISTICS` of the network input. called: int64 (N,), cells with a known label
    that are called instrument. cells: float32 (M, 5), their `CELL_INPUTS`, frame after frame. right: bool (M,), whether they
    are.
    consecutive: int64 (N, 4), cells of the intersection and union with the last frame of the clip: base, then refined.
    clips, sequences: str (N,).
    """

    base: Pixels
    refined: Pixels
    known: Pixels
    steps: Pixels
    confidence: NDArray[np.float64]
    statistics: NDArray[np.float64]
    means: NDArray[np.float64]
    colors: NDArray[np.float64]
    called: Pixels
    consecutive: Pixels
    clips: NDArray[np.str_]
    sequences: NDArray[np.str_]
    cells: NDArray[np.float32]
    right: NDArray[np.bool_]

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the fields by name, for a file of NumPy."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def cell_values(self) -> NDArray[np.float64]:
        """Return the inputs of a calibration, (M, 5 + 10): those of the cells, and the statistics of their frames."""
        return np.concatenate([self.cells, np.repeat(self.statistics, self.called, axis=0)], axis=1)

    def frame_values(self) -> NDArray[np.float64]:
        """Return the inputs of a distance, (N, 10 + K + 21)."""
        return np.concatenate([self.statistics, self.means, self.colors], axis=1)


class BaseCapture(ImageSegmenter):
    """A segmenter that keeps the result without restoration and refinement in `base`."""

    base: Segmentation

    def restore(self, context: FrameContext) -> None:
        """Restore the input, and keep what the base gives on it as it was."""
        image = context.image.copy()
        super().restore(context)
        self._same_input = np.array_equal(image, context.image)
        if not self._same_input:
            outputs = self._encoder.run({"image": image, "text": self.bundle.embeddings})
            self.base = segmentation_of(outputs["logits"][0], context.view, 0, 0.0, self.regions)

    def refine(self, context: FrameContext) -> None:
        """Keep the base's result, then refine."""
        if self._same_input:
            self.base = segmentation_of(context.logits[0], context.view, 0, 0.0, self.regions)
        super().refine(context)


def score_frames(
    bundle: Bundle,
    data: LabelledDataset,
    ignored: Sequence[str] = (),
    every: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
    make: Callable[..., BaseCapture] = BaseCapture,
) -> FrameScores:
    """Score each `every`-th frame in order at the size of its truth, in f32 on one CPU thread.

    `make` creates the segmenter.

    The prior goes from scored frame to scored frame of a clip.
    `progress` is called with the number of scored frames and their total.
    """
    segmenter, scale = make(bundle, precision="f32", threads=1), grid_scale(bundle)
    classes = map_to_instrument(data.classes, bundle.manifest.classes, ignored)
    is_instrument = classes.predicted == 1
    members = is_instrument[: len(bundle.manifest.classes)]
    rows, cells = list[tuple[object, ...]](), list[tuple[NDArray[np.float32], NDArray[np.bool_]]]()
    last: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
    for index, sample, fresh in iterate_samples(data, range(0, len(data), every), segmenter.reset):
        after = segmenter.segment(sample.image)
        before, truth = segmenter.base, classes.truth[sample.labels]
        masks = is_instrument[before.labels], is_instrument[after.labels]
        inside = inside_cells(after.view, *after.labels.shape)
        cells.append(_cells(after, truth, members, scale))
        rows.append(
            (
                *(_pixels(is_instrument[labels_at_frame(one, *truth.shape)], truth) for one in (before, after)),
                int((truth != IGNORE).sum()),
                after.steps,
                after.confidence,
                frame_statistics(after.probabilities, after.labels, inside, members, scale),
                mean_probabilities(after.probabilities, inside),
                color_statistics(_known(after.colors), inside),
                len(cells[-1][1]),
                _consecutive(masks, None if fresh else last),
                data.clip(index),
                sample.sequence,
            )
        )
        last = masks
        progress(len(rows), -(-len(data) // every))
    ragged = (np.concatenate(part) for part in zip(*cells, strict=True))
    return FrameScores(*(np.array(column) for column in zip(*rows, strict=True)), *ragged)


def _known(colors: Image | None) -> Image:
    assert colors is not None, "a segmenter of the CPU keeps the colors"
    return colors


def _pixels(mask: NDArray[np.bool_], truth: Image) -> list[int]:
    known, there = truth != IGNORE, truth == 1
    return [int((mask & there).sum()), int(((mask | there) & known).sum()), int((mask & known & ~there).sum())]


def _cells(
    found: Segmentation, truth: Image, is_instrument: NDArray[np.bool_], scale: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the inputs (n, 5) of the cells called instrument that have a known label, and whether they are (n,)."""
    there, called = labels_on_grid(truth, found.view, found.labels.shape), is_instrument[found.labels]
    known = (inside_cells(found.view, *found.labels.shape) & (there != IGNORE))[called]
    return cell_inputs(found.probabilities, called, is_instrument, scale)[known], (there == 1)[called][known]


def _consecutive(
    now: tuple[NDArray[np.bool_], NDArray[np.bool_]], last: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None
) -> list[int]:
    if last is None:
        return [0] * 4
    return [
        int(value) for one, other in zip(now, last, strict=True) for value in ((one & other).sum(), (one | other).sum())
    ]
