"""The odds of some classes against all others, read from a segmentation's logits and written back into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_odds(logits: NDArray[Any], classes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the binary logit float32 (h, w) of `classes`, as one, against the other classes of `logits` (K, h, w)."""
    chosen = np.zeros(len(logits), bool)
    chosen[np.asarray(classes)] = True
    return np.asarray(_log_sum(logits[chosen]) - _log_sum(logits[~chosen]), np.float32)


def with_class_odds(
    logits: NDArray[Any], classes: Sequence[int] | NDArray[np.int64], odds: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return `logits` (K, h, w) in which `classes`, as one, have the binary logit `odds` (h, w) against the others.

    The ratios within the chosen classes, and within the others, stay as they were.
    """
    changed = np.array(logits, np.float32)
    changed[np.asarray(classes)] += odds - class_odds(logits, classes)
    return changed


def _log_sum(logits: NDArray[Any]) -> NDArray[np.float32]:
    top = logits.max(axis=0)
    return np.asarray(top + np.log(np.exp(logits - top).sum(axis=0)), np.float32)
