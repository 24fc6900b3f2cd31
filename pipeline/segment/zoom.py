"""A small region is segmented again in an enlarged part of the frame, because a thin or distant instrument has few cells."""

from __future__ import annotations

import time
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Bundle, Engine, size_of
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.interfaces import Preprocessor
from cliprl.pipeline.core.segmentation import ZoomedRegion
from cliprl.pipeline.core.viewport import Box, inside_cells
from cliprl.pipeline.segment.decision import softmax
from cliprl.pipeline.segment.input_filters import brighten
from cliprl.pipeline.segment.refinement import CostEstimate
from cliprl.pipeline.view.enlarged import enlarged_view, part_around

# The first frame is looked at, and of the following ones each n-th, or the next one if that was left out; those between take
# the last result, moved with the image.
LOOK_EVERY = 5
# Mean absolute difference (0..255) between two network inputs above which the second is looked at: it may be an unrelated still.
OTHER_IMAGE = 12.0
# The part that is enlarged has one n-th of the rows and of the columns of the grid.
_FACTOR = 2
# The probability of all instruments together in each cell of a region that is looked at, and in one of them at least.
_LEAST, _PEAK = 0.2, 0.6
# The fewest cells of such a region, and the cells around it whose result is taken too.
_FEWEST, LOOK_AROUND = 4, 4


class RegionZoom:
    """Segments the largest small region of a frame again. Several threads may use it at once."""

    def __init__(self, bundle: Bundle, encoder: Engine) -> None:
        self._bundle, self._encoder, self._cost = bundle, encoder, CostEstimate()
        self._members = [i for i, each in enumerate(bundle.manifest.classes) if each.kind == "instrument"]
        self._largest = bundle.manifest.regions.zoomed if bundle.manifest.regions else 0.0

    @classmethod
    def of(cls, bundle: Bundle, encoder: Engine) -> Self | None:
        """Return what a bundle's rule for regions asks for; None without, and for a grid of an odd side."""
        sides, regions = size_of(bundle), bundle.manifest.regions
        is_even = not any(side // bundle.manifest.stride % _FACTOR for side in sides)
        return cls(bundle, encoder) if is_even and regions and regions.zoomed else None

    def __call__(
        self, context: FrameContext, preprocessor: Preprocessor, deadline: float | None = None
    ) -> ZoomedRegion | None:
        """Return a region of an encoded frame as it is in its enlarged part; None if no region is small.

        None too where it would be done after `deadline`, a `time.monotonic()` in seconds.
        """
        grid = context.logits.shape[2:]
        chances = softmax(context.logits)[0, self._members].sum(axis=0) * inside_cells(context.view, *grid)
        found = self._small_region(chances)
        part = None if found is None else part_around(context.view, found[0], grid, _FACTOR)
        if found is None or part is None or not self._cost.in_time(deadline):
            return None
        start, (box, cells), (left, top, width, height) = time.monotonic(), found, part
        logits = self._enlarged(context, preprocessor, part).mean(axis=(2, 4), dtype=np.float32)
        self._cost.learn(start)
        rows = slice(max(top, box[1] - LOOK_AROUND), min(top + height, box[1] + box[3] + LOOK_AROUND))
        columns = slice(max(left, box[0] - LOOK_AROUND), min(left + width, box[0] + box[2] + LOOK_AROUND))
        inner = logits[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        return ZoomedRegion(rows, columns, inner, cells[rows, columns])

    def _small_region(self, chances: NDArray[np.float32]) -> tuple[Box, NDArray[np.bool_]] | None:
        """Return the box of the largest small region with an instrument's probability, and the cells around it (h, w)."""
        _, regions, statistics, _ = cv2.connectedComponentsWithStats((chances > _LEAST).view(np.uint8), connectivity=8)
        for region in 1 + np.argsort(-statistics[1:, cv2.CC_STAT_AREA], kind="stable"):
            left, top, width, height, area = statistics[region].tolist()
            cells = regions == region
            if _FEWEST <= area < self._largest * chances.size and chances[cells].max() >= _PEAK:
                wider = cv2.dilate(cells.view(np.uint8), np.ones((2 * LOOK_AROUND + 1,) * 2, np.uint8))
                return (left, top, width, height), wider.view(np.bool_)
        return None

    def _enlarged(self, context: FrameContext, preprocessor: Preprocessor, part: Box) -> NDArray[np.float32]:
        """Return the logits of a part of the grid, (K, rows, _FACTOR, columns, _FACTOR), from its part of the frame."""
        image = np.zeros_like(context.image)
        preprocessor.prepare(context.frame, enlarged_view(context.view, part, context.logits.shape[2:]), image[0])
        restoration = self._bundle.manifest.restoration
        if restoration is not None and context.damage is not None and context.damage.mean < restoration.dark:
            brighten(image[0], restoration, context.damage)
        logits = self._encoder.run({"image": image, "text": self._bundle.embeddings})["logits"][0]
        return np.asarray(logits).reshape(len(logits), part[3], _FACTOR, part[2], _FACTOR)
