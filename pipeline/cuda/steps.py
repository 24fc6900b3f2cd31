"""How many refinement steps a frame is given, decided without waiting for the GPU: from what came back of earlier frames."""

from __future__ import annotations

import threading
from collections import deque

# So many of the latest frames are asked how many steps they needed.
WINDOW = 8
# Weight of the newest frame in the running estimate of how long a count of steps takes.
SMOOTHING = 0.2
# An estimate shrinks while its count is not used, so that one slow moment can't end refinement for good.
FORGETTING = 0.98


class StepPlan:
    """Chooses among step counts 0..`most` of which each has a recorded graph.

    On the GPU itself a mask that has settled is left alone by the steps that follow, so a count too large costs time and changes
    nothing. A count too small shows: the frame comes back unsettled, and the next ones get all steps again. `budget` is the
    seconds that a frame may take from its start to its result, None for no bound. May be used from several threads.
    """

    def __init__(self, most: int, budget: float | None = None) -> None:
        self._most, self._budget = most, budget
        self._needed: deque[int] = deque(maxlen=WINDOW)
        self._seconds = [0.0] * (most + 1)
        self._lock = threading.Lock()

    def next(self) -> int:
        """Steps for the next frame: the most that any of the latest frames needed, as far as the budget goes."""
        with self._lock:
            return self._within(max(self._needed, default=self._most))

    def _within(self, wanted: int) -> int:
        if self._budget is None:
            return wanted
        fitting = next((count for count in range(wanted, -1, -1) if self._seconds[count] <= self._budget), 0)
        for count in range(fitting + 1, self._most + 1):
            self._seconds[count] *= FORGETTING
        return fitting

    def learn(self, given: int, taken: int, settled: bool, seconds: float) -> None:
        """A frame that was given so many steps came back: the steps that changed it, and the time from its start."""
        with self._lock:
            self._needed.append(taken if settled else self._most)
            known = self._seconds[given]
            self._seconds[given] = known + (seconds - known) * SMOOTHING if known else seconds
