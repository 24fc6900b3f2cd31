"""The refinement loop at run time: a learned policy improves the mask step by step, for as long as there is time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.engines import Engine

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


class RefinementLoop:
    """Runs the policy at most `steps` times, on classes whose text embeddings are `text` float32 (K, E).

    It is anytime: every step's result is a valid mask.

    It stops early when a step leaves nearly every cell alone, or when the next step would end after the deadline.
    """

    def __init__(self, engine: Engine, steps: int, text: Array) -> None:
        self.engine, self.steps, self.text = engine, steps, text
        self._step_seconds = 0.0
        self._logits = np.empty(0, np.float32)

    def __call__(self, features: Array, base: Array, prior: Array, deadline: float | None = None) -> RefinementResult:
        """Refine `base` (1, K, h, w). `prior` is the previous frame's result; `deadline` a `time.monotonic()` in seconds.

        The result's logits are overwritten by the next call.
        """
        if self._logits.shape != base.shape:
            self._logits = np.empty(base.shape, np.float32)
        np.copyto(self._logits, base)
        taken, moved = 0, 0.0
        while taken < self.steps and self._in_time(deadline):
            moved = self._step(features, base, prior)
            taken += 1
            if moved < SETTLED:
                break
        return RefinementResult(self._logits, taken, moved)

    def _in_time(self, deadline: float | None) -> bool:
        if deadline is None or time.monotonic() + self._step_seconds <= deadline:
            return True
        self._step_seconds *= FORGETTING
        return False

    def _step(self, features: Array, base: Array, prior: Array) -> float:
        start = time.monotonic()
        inputs = {"features": features, "logits": self._logits, "base": base, "prior": prior, "text": self.text}
        outputs = self.engine.run(inputs)
        np.copyto(self._logits, outputs["refined"])
        seconds = time.monotonic() - start
        self._step_seconds += (seconds - self._step_seconds) * (SMOOTHING if self._step_seconds else 1.0)
        return float(outputs["moved"])
