"""Decide whether a thing is in a frame at all, from the margins of its logits over those of everything else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Evidence is the mean of this share of the cells, those with the largest margins, and of at least `TOP_CELLS`.
TOP_SHARE, TOP_CELLS = 0.005, 4
# Newton steps and ridge penalty of the logistic regression.
_NEWTON_STEPS, _RIDGE = 25, 1e-3
# Share of frames without the thing that the threshold rejects at least.
LEAST_REJECTION = 0.95


@dataclass(frozen=True, slots=True)
class PresenceTest:
    """A calibrated presence test: probability = sigmoid(slope x evidence + offset), present from `threshold` on."""

    slope: float
    offset: float
    threshold: float

    def probability(self, evidence: float) -> float:
        """Return the probability, 0..1, that the thing is in the frame."""
        return float(1 / (1 + np.exp(-np.clip(self.slope * evidence + self.offset, -30, 30))))

    def is_present(self, evidence: float) -> bool:
        """Return whether the probability reaches the threshold."""
        return self.probability(evidence) >= self.threshold


# Of a margin that was never calibrated: present if the largest margins are above 0.
UNCALIBRATED = PresenceTest(1.0, 0.0, 0.5)


def presence_evidence(margins: NDArray[np.floating], inside: NDArray[np.bool_] | None = None) -> float:
    """Return the evidence for a thing: the mean of the largest margins float (h, w), in the field of view `inside`.

    A margin is the logit of the thing less the largest logit of all other classes. Without a cell, -inf.
    """
    values = np.asarray(margins)[inside] if inside is not None else np.asarray(margins).ravel()
    if not values.size:
        return -float("inf")
    count = min(values.size, max(TOP_CELLS, int(TOP_SHARE * values.size)))
    return float(np.partition(values, values.size - count)[-count:].mean())


def fit_presence(evidence: NDArray[np.floating], present: NDArray[np.bool_]) -> PresenceTest:
    """Fit a test to the evidence (n,) of frames in which the thing is `present` (n,) or not.

    The threshold is the lowest one that rejects `LEAST_REJECTION` of the frames without it. Raises ValueError if
    all frames have it, or none.
    """
    present = np.asarray(present, bool)
    if present.all() or not present.any():
        raise ValueError("a presence test is fitted to frames with the thing and frames without it")
    center, scale = float(np.mean(evidence)), float(np.std(evidence)) or 1.0
    columns = np.stack([(np.asarray(evidence, np.float64) - center) / scale, np.ones(len(present))], axis=1)
    # Both kinds weigh the same, however many frames of each there are.
    weights = np.where(present, 0.5 / present.sum(), 0.5 / (~present).sum())
    parameters = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(columns @ parameters, -30, 30)))
        slope = columns.T @ (weights * (present - chance)) - _RIDGE * parameters
        curvature = (columns.T * (weights * chance * (1 - chance))) @ columns + _RIDGE * np.eye(2)
        parameters = parameters + np.linalg.solve(curvature, slope)
    test = PresenceTest(float(parameters[0] / scale), float(parameters[1] - parameters[0] * center / scale), 0.5)
    absent = sorted(test.probability(float(value)) for value in np.asarray(evidence)[~present])
    limit = absent[min(len(absent) - 1, int(np.ceil(LEAST_REJECTION * len(absent))) - 1)]
    return PresenceTest(test.slope, test.offset, float(np.nextafter(limit, 2.0)))
