"""Leave out the masks of classes that a frame does not show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import inside_cells
from cliprl.pipeline.segment.presence import PresenceTest, presence_evidence

# Fitted on the protocol's sets for choosing: models/studies/words/presence_study.py, models/results/presence.json.
CLASS_PRESENCE = PresenceTest(0.6601, 0.6558, 0.7809)
# Keeps the logarithm of a probability finite.
_TINY = 1e-9


def class_evidence(segmentation: Segmentation, class_id: int) -> float:
    """Return the evidence for a class in a frame (see `presence_evidence`), from the refined probabilities."""
    p = segmentation.probabilities
    others = np.maximum(p[:class_id].max(axis=0, initial=0.0), p[class_id + 1 :].max(axis=0, initial=0.0))
    inside = inside_cells(segmentation.view, *segmentation.labels.shape)
    return presence_evidence(np.log(p[class_id] + _TINY) - np.log(others + _TINY), inside)


class PresenceGate:
    """Leaves out the masks of absent classes, of those that were named at run time."""

    def __init__(self, classes: Sequence[ClassSpec], test: PresenceTest = CLASS_PRESENCE) -> None:
        self._gated, self._test = {i: spec.name for i, spec in enumerate(classes) if spec.kind == "prompted"}, test

    def __call__(self, segmentation: Segmentation) -> None:
        """Set the presence of the gated classes, and give the cells of absent ones to the next likely class."""
        chances = {i: self._test.probability(class_evidence(segmentation, i)) for i in self._gated}
        segmentation.presence = {name: chances[i] for i, name in self._gated.items()}
        absent = [i for i, chance in chances.items() if chance < self._test.threshold]
        cells = np.isin(segmentation.labels, absent)
        if cells.any():
            left = segmentation.probabilities[:, cells].copy()
            left[absent] = -1
            segmentation.labels[cells] = left.argmax(axis=0)
