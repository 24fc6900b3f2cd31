"""The confidence of a bundle: how its probabilities, its doubt and the familiarity of a frame are computed from its masks.

`confidence.json` of a bundle holds it; `python -m cliprl.models.studies.confidence.calibration` fits it after training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines.errors import BundleError, first_fault, reason_of

CONFIDENCE_FILE = "confidence.json"
# The largest file that is read, in bytes; the shipped one has 15 KB.
MAX_CONFIDENCE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class LogisticSpec:
    """A logistic regression: the probability is 1 / (1 + exp(-(weights · inputs + intercept)))."""

    weights: tuple[float, ...]
    intercept: float


@dataclass(frozen=True)
class DistanceSpec:
    """The least Mahalanobis distance from S sets: the length of `whitening` (N, N) times the inputs (N,) less a set's `means`.

    means: (S, N). The sets share one covariance.
    """

    means: tuple[tuple[float, ...], ...]
    whitening: tuple[tuple[float, ...], ...]

    @cached_property
    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`means` (S, N) and `whitening` (N, N), converted once."""
        return np.array(self.means), np.array(self.whitening)


@dataclass(frozen=True, slots=True)
class ConfidenceSpec:
    """The fitted confidence of a bundle.

    statistics: names of the statistics of a frame, in order. cells: names of the inputs of a cell. calibration: the probability
    that a cell called instrument is one; its inputs are those of the cell and the statistics. doubt: the probability that the
    instruments of a frame are badly segmented; its inputs are the statistics. familiarity: the distance of a frame from those
    that it was fitted to; its inputs are the statistics, the mean probability of each class, and `colors`, the names of the
    statistics of the network input. A frame is unsure or unfamiliar at or above its threshold.
    """

    statistics: tuple[str, ...]
    cells: tuple[str, ...]
    colors: tuple[str, ...]
    calibration: LogisticSpec
    doubt: LogisticSpec
    familiarity: DistanceSpec
    unsure: float
    unfamiliar: float

    def to_text(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def fits(self, classes: int) -> bool:
        """Return whether the sizes of all parts agree, for a bundle of this number of classes."""
        count, numbers = len(self.statistics), self.familiarity
        inputs = count + classes + len(self.colors)
        sizes = [len(self.calibration.weights) - len(self.cells), len(self.doubt.weights)]
        rows = [len(row) for row in (*numbers.whitening, *numbers.means)]
        squared = len(numbers.whitening) == inputs and len(numbers.means) > 0
        return squared and sizes == [count] * 2 and rows == [inputs] * len(rows)

    def values(self) -> Sequence[float]:
        """Return all numbers."""
        logistic = [(*part.weights, part.intercept) for part in (self.calibration, self.doubt)]
        return [
            *(value for part in (*logistic, *self.familiarity.whitening, *self.familiarity.means) for value in part),
            self.unsure,
            self.unfamiliar,
        ]


def _read_plainly(data: Any) -> ConfidenceSpec | None:
    """Return the confidence of JSON values that are as `to_text` writes them; None for others, which pydantic explains.

    To import pydantic takes a tenth of a start.
    """

    def row(values: Any, kind: type) -> tuple[Any, ...]:
        if type(values) is not list or any(type(value) is not kind for value in values):
            raise TypeError
        return tuple(values)

    def logistic(part: Any) -> LogisticSpec:
        return LogisticSpec(row(part["weights"], float), *row([part["intercept"]], float))

    def rows(values: Any) -> tuple[tuple[float, ...], ...]:
        return tuple(row(each, float) for each in row(values, list))

    try:
        statistics, cells, colors = (row(data[name], str) for name in ("statistics", "cells", "colors"))
        spread = DistanceSpec(rows(data["familiarity"]["means"]), rows(data["familiarity"]["whitening"]))
        limits = row([data["unsure"], data["unfamiliar"]], float)
        return ConfidenceSpec(
            statistics, cells, colors, logistic(data["calibration"]), logistic(data["doubt"]), spread, *limits
        )
    except (KeyError, TypeError):
        return None


def _validated(data: Any, path: Path) -> ConfidenceSpec:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(ConfidenceSpec).validate_python(data)
    except ValidationError as error:
        raise BundleError(
            f"{path}: {first_fault(error)}; fit it again with python -m cliprl.models.studies.confidence.calibration"
        ) from error


def read_confidence(path: Path, classes: int) -> ConfidenceSpec:
    """Read the file of a bundle with this number of classes. Raises BundleError for one that is garbled."""
    try:
        if (size := path.stat().st_size) > MAX_CONFIDENCE_BYTES:
            raise BundleError(f"{path} has {size} bytes, more than {MAX_CONFIDENCE_BYTES}: write the bundle again")
        data = json.loads(path.read_bytes())
        spec = _read_plainly(data) or _validated(data, path)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} is not JSON ({reason_of(error)[:80]}); write the bundle again") from error
    except OSError as error:
        raise BundleError(f"{path} can't be read ({reason_of(error)}): copy the bundle again") from error
    if not spec.fits(classes) or not all(map(math.isfinite, spec.values())):
        raise BundleError(
            f"{path} is not for {classes} classes and {len(spec.statistics)} statistics, or holds a number that is not "
            "finite: write the bundle again"
        )
    return spec
