"""The refinement loop: a learned policy improves the mask step by step while there is time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Engine, UsageError
from cliprl.pipeline.segment.decision import softmax

Array = NDArray[Any]
# Below this share of changed cells a further step is not worth its time.
SETTLED = 0.001
# Weight of the newest step in the running estimate of how long a step takes.
SMOOTHING = 0.2
# The estimate shrinks while no step is taken, so that one slow moment can't end refinement for good.
FORGETTING = 0.98


@dataclass(frozen=True, slots=True)
class RefinementResult:
    """Refined logits float32 (1, K, h, w), the steps taken to get there, and the share of cells that the last one changed."""

    logits: Array
    steps: int
    moved: float


class CostEstimate:
    """A running estimate of how many seconds some work takes, against a deadline."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def in_time(self, deadline: float | None) -> bool:
        """Return whether the work would end before `deadline`, a `time.monotonic()` in seconds; None is no deadline."""
        if deadline is None or time.monotonic() + self._seconds <= deadline:
            return True
        self._seconds *= FORGETTING
        return False

    def learn(self, start: float) -> None:
        """Take in that the work, begun at `start`, ends now."""
        self._seconds += (time.monotonic() - start - self._seconds) * (SMOOTHING if self._seconds else 1.0)


class RefinementLoop:
    """Runs the policy at most `steps` times, on classes whose text embeddings are `text` float32 (K, E).

    It is anytime: every step's result is a valid mask.

    It stops early when a step leaves nearly every cell alone, or when the next step would end after the deadline.
    A step does not raise a class whose probability before refinement is less than `least`.
    """

    def __init__(self, engine: Engine, steps: int, text: Array, least: float = 0.0) -> None:
        self.engine, self.steps, self.text, self._least = engine, steps, text, least
        self._cost = CostEstimate()
        self._logits = np.empty(0, np.float32)

    def __call__(self, features: Array, base: Array, prior: Array, deadline: float | None = None) -> RefinementResult:
        """Refine `base` (1, K, h, w). `prior` is the previous frame's result; `deadline` a `time.monotonic()` in seconds.

        The result's logits are overwritten by the next call.
        """
        if self._logits.shape != base.shape:
            self._logits = np.empty(base.shape, np.float32)
        np.copyto(self._logits, base)
        taken, moved = 0, 0.0
        unlikely = softmax(base) < self._least if self._least and self.steps else None
        while taken < self.steps and self._cost.in_time(deadline):
            moved = self._step(features, base, prior)
            if unlikely is not None:
                np.minimum(self._logits, base, out=self._logits, where=unlikely)
            taken += 1
            if moved < SETTLED:
                break
        return RefinementResult(self._logits, taken, moved)

    def _step(self, features: Array, base: Array, prior: Array) -> float:
        start = time.monotonic()
        inputs = {"features": features, "logits": self._logits, "base": base, "prior": prior, "text": self.text}
        outputs = self.engine.run(inputs)
        np.copyto(self._logits, outputs["refined"])
        self._cost.learn(start)
        return float(outputs["moved"])


def check_time_limits(steps: int, budget: float | None) -> None:
    """Raise UsageError for a negative number of steps, and for a budget in seconds that is not positive."""
    if steps < 0:
        raise UsageError(
            f"steps {steps} is negative: give 0 for no refinement, or the largest number of refinement steps per frame"
        )
    if budget is not None and not budget > 0:
        raise UsageError(
            f"budget {budget * 1000:g} ms is not positive: give the milliseconds a frame may take, or leave it out"
        )
