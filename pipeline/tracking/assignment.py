"""The assignment of regions to instruments at the least total cost."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def assign(costs: NDArray[np.float64], limit: float) -> list[int]:
    """Return the column for each row of `costs` (rows, columns), -1 for none; no pair costs more than `limit`."""
    if len(costs) == 1:
        best = int(costs[0].argmin())
        return [best if costs[0, best] <= limit else -1]
    import lap

    _, chosen, _ = lap.lapjv(np.ascontiguousarray(costs), extend_cost=True, cost_limit=limit)
    return [int(column) for column in chosen]
