"""Fits of the confidence of a bundle: logistic regression, whitening, and scores of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import DistanceSpec, LogisticSpec
from cliprl.models.evaluation.scoring.calibration import BINS

Values = NDArray[np.float64]
# Newton steps; it converges in about ten. The share of the identity in the covariance of standardized inputs.
NEWTON_STEPS, SHRINKAGE = 30, 0.3
SMALLEST_SCALE = 1e-6


@dataclass(frozen=True, slots=True)
class LogisticModel:
    """A logistic regression on standardized inputs."""

    means: Values
    deviations: Values
    weights: Values
    intercept: float

    @classmethod
    def fit(
        cls, inputs: Values, outcomes: NDArray[np.bool_], counts: Values | None = None, penalty: float = 0.01
    ) -> LogisticModel:
        """Fit to inputs (N, M) and outcomes (N,) by Newton's method, each weighted by `counts` (N,).

        `penalty`: of the squared coefficients of the standardized inputs, for the mean over outcomes.
        """
        shares = np.full(len(inputs), 1 / len(inputs)) if counts is None else counts / counts.sum()
        means = shares @ inputs
        deviations = np.sqrt(shares @ (inputs - means) ** 2) + 1e-6
        columns = np.column_stack([(inputs - means) / deviations, np.ones(len(inputs))])
        ridge = penalty * np.eye(columns.shape[1])
        ridge[-1, -1] = 0
        weights = np.zeros(columns.shape[1])
        for _ in range(NEWTON_STEPS):
            chance = 1 / (1 + np.exp(-np.clip(columns @ weights, -30, 30)))
            curvature = (columns * (shares * (chance * (1 - chance) + 1e-4))[:, None]).T @ columns + ridge
            weights -= np.linalg.solve(curvature, columns.T @ (shares * (chance - outcomes)) + ridge @ weights)
        return cls(means, deviations, weights[:-1], float(weights[-1]))

    def logits(self, inputs: Values) -> Values:
        """Return the logits (N,) of inputs (N, M)."""
        return np.asarray((inputs - self.means) / self.deviations @ self.weights + self.intercept)

    def spec(self) -> LogisticSpec:
        """Return the same regression on inputs as they are."""
        weights = self.weights / self.deviations
        intercept = self.intercept - float(weights @ self.means)
        return LogisticSpec(tuple(round(float(w), 6) for w in weights), round(intercept, 6))


def fit_distance(sets: Sequence[Values]) -> DistanceSpec:
    """Return the least Mahalanobis distance from sets of inputs (n, M), which share the mean of their covariances.

    The covariance of the standardized inputs is shrunk towards the identity: with few frames, directions in which no set varies
    would decide alone.
    """
    means = np.stack([inputs.mean(0) for inputs in sets])
    deviations = np.concatenate(list(sets)).std(0) + SMALLEST_SCALE
    covariance = np.mean([np.cov(((x - mean) / deviations).T) for x, mean in zip(sets, means, strict=True)], axis=0)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.eye(len(deviations))
    whitening = np.linalg.inv(np.linalg.cholesky(shrunk)) / deviations
    return DistanceSpec(_rounded(means), _rounded(whitening))


def _rounded(rows: Values) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(f"{value:.6g}") for value in row) for row in rows)


def distances(spec: DistanceSpec, inputs: Values) -> Values:
    """Return the distances (N,) of inputs (N, M); a distance of fewer inputs takes the first ones."""
    whitening = np.array(spec.whitening).T
    known = inputs[:, : len(whitening)]
    found = [np.linalg.norm((known - np.array(mean)) @ whitening, axis=1) for mean in spec.means]
    return np.asarray(np.min(found, axis=0))


def calibration_error(chance: NDArray[np.floating], right: NDArray[np.bool_]) -> float | None:
    """Return the expected calibration error of probabilities (N,), in bins of equal width; None without any."""
    bins = np.clip((chance * BINS).astype(np.intp), 0, BINS - 1)
    return round(float(np.abs(np.bincount(bins, chance - right, BINS)).sum()) / len(chance), 4) if len(chance) else None


def best_threshold(values: Values, positive: NDArray[np.bool_]) -> float:
    """Return the threshold of values (n,) with the largest sum of sensitivity and specificity (Youden's index)."""
    order = np.sort(np.unique(values))
    found = [(values[positive] >= t).mean() + (values[~positive] < t).mean() for t in order]
    return round(float(order[int(np.argmax(found))]), 4)
