"""Estimate how doubtful the mask of a frame is, from statistics of its class probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import ClassSpec
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.viewport import inside_cells

# Of the cells in the field of view: share called instrument; mean entropy; mean entropy of the cells called instrument; largest
# probability of instrument; share with a probability of 0.1 to 0.9; length of the outline; outline for its area.
MASK_STATISTICS = ("area", "entropy", "instrument entropy", "largest", "undecided", "outline", "outline for area")
SMALLEST_AREA = 0.01
# Logits beyond this make no difference.
LARGEST = 30.0
# Logistic regression on frames of the protocol's choosing sets: models/studies/doubt_study.py, models/results/doubt.json.
DOUBT_MEANS = (0.09596, 0.60664, 0.88833, 0.96285, 0.07078, 0.02975, 0.39009)
DOUBT_DEVIATIONS = (0.10324, 0.08067, 0.27969, 0.16673, 0.06519, 0.01712, 0.21043)
DOUBT_WEIGHTS = (-0.4455, -0.8839, 0.2329, -1.3733, 0.995, -0.5236, 1.0228)
DOUBT_INTERCEPT = -2.0576


def mask_statistics(segmentation: Segmentation, classes: Sequence[ClassSpec]) -> NDArray[np.float64]:
    """Return the `MASK_STATISTICS` of a frame, float64 (7,)."""
    p, inside = segmentation.probabilities, inside_cells(segmentation.view, *segmentation.labels.shape)
    is_instrument = np.array([spec.kind == "instrument" for spec in classes])
    cells = max(1, int(inside.sum()))
    called, chance = is_instrument[segmentation.labels] & inside, p[is_instrument].sum(0)
    entropy = -(p * np.log(p + 1e-9)).sum(0)
    area = called.sum() / cells
    outline = ((called[1:] != called[:-1]).sum() + (called[:, 1:] != called[:, :-1]).sum()) / cells
    return np.array(
        [
            area,
            entropy[inside].mean() if inside.any() else 0.0,
            entropy[called].mean() if called.any() else 0.0,
            chance[inside].max(initial=0.0),
            ((chance > 0.1) & (chance < 0.9) & inside).sum() / cells,
            outline,
            outline / max(area, SMALLEST_AREA),
        ],
        np.float64,
    )


def frame_doubt(segmentation: Segmentation, classes: Sequence[ClassSpec]) -> float | None:
    """Return the estimated probability, 0..1, that the mask's instrument IoU is below 0.5, for a frame that shows an instrument.

    Return None for classes without an instrument.
    """
    if not any(spec.kind == "instrument" for spec in classes):
        return None
    return float(doubt_of(mask_statistics(segmentation, classes)))


def doubt_of(statistics: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the doubt (...) of statistics (..., 7)."""
    logit = (statistics - DOUBT_MEANS) / DOUBT_DEVIATIONS @ np.array(DOUBT_WEIGHTS) + DOUBT_INTERCEPT
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -LARGEST, LARGEST))), np.float64)
