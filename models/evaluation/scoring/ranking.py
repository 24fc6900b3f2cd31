"""Scores of a ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def auroc(positive: NDArray[Any], negative: NDArray[Any]) -> float | None:
    """Return the chance that a positive value (n,) is above a negative one (m,), ties counting half; None if a side is empty."""
    if not len(positive) or not len(negative):
        return None
    ordered = np.sort(negative)
    below = sum(np.searchsorted(ordered, positive, side).sum() for side in ("left", "right")) / 2
    return round(float(below) / (len(positive) * len(negative)), 4)
