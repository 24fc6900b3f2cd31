"""Leave out the masks of classes that a frame does not show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import inside_cells
from cliprl.pipeline.segment.presence import PresenceTest, presence_evidence

# Fitted on the protocol's sets for choosing: models/studies/words/presence_study.py, models/results/presence.json.
# Classes that exemplars add, and classes that words add: more words than exemplars name what no frame shows.
CLASS_PRESENCE = PresenceTest(0.7245, 0.6374, 0.7983)
WORD_PRESENCE = PresenceTest(0.535, -0.072, 0.7271)
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

    def __init__(self, classes: Sequence[ClassSpec]) -> None:
        self._tests = {
            i: WORD_PRESENCE if spec.prompts else CLASS_PRESENCE
            for i, spec in enumerate(classes)
            if spec.kind == "prompted"
        }
        self._names = [classes[i].name for i in self._tests]

    def __call__(self, segmentation: Segmentation) -> None:
        """Set the presence of the gated classes, and give the cells of absent ones to the next likely class."""
        chances = {i: test.probability(class_evidence(segmentation, i)) for i, test in self._tests.items()}
        segmentation.presence = dict(zip(self._names, chances.values(), strict=True))
        absent = [i for i, chance in chances.items() if chance < self._tests[i].threshold]
        cells = np.isin(segmentation.labels, absent)
        if cells.any():
            left = segmentation.probabilities[:, cells].copy()
            left[absent] = -1
            segmentation.labels[cells] = left.argmax(axis=0)
