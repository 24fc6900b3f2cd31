"""Measure the throughput of a stage and its wait for data: if the wait is not near 0, loading is the bottleneck."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from cliprl.models.data.batch_loader import BatchLoader
from cliprl.models.training.checkpoint import TrainingStage


@runtime_checkable
class PrefetchedStage(Protocol):
    """A stage with prefetched batches; `config.batch` is the batch size."""

    batches: BatchLoader[Any]
    config: Any


@dataclass(frozen=True, slots=True)
class Throughput:
    """The throughput of some steps: steps and images of all processes, elapsed seconds, and seconds waited for data."""

    steps: int
    images: int
    seconds: float
    waited: float

    @property
    def images_per_second(self) -> float:
        """Return the number of training images per second."""
        return self.images / max(self.seconds, 1e-9)

    @property
    def waiting(self) -> float:
        """Return the share of the time spent waiting for data, 0..1."""
        return min(1.0, self.waited / max(self.seconds, 1e-9))

    def __str__(self) -> str:
        return f"{self.images_per_second:.1f} images/s, {self.waiting:.1%} of the time waiting for data"


@dataclass(frozen=True, slots=True)
class StepTime:
    """The finished steps, the clock, and the seconds waited after a step."""

    done: int
    seconds: float
    waited: float

    def until(self, now: StepTime, batch: int) -> Throughput:
        """Return the throughput from this step to a later one."""
        steps = now.done - self.done
        return Throughput(steps, steps * batch, now.seconds - self.seconds, now.waited - self.waited)


class ThroughputMeter:
    """Times the steps of a stage, from the end of this process's first one, which includes the start-up."""

    def __init__(self) -> None:
        self._first: dict[str, StepTime] = {}
        self._last: dict[str, StepTime] = {}

    def after(self, stage: TrainingStage, done: int) -> tuple[Throughput, Throughput] | None:
        """Return the throughput of the last step and of all timed steps, after `done` steps; None after the first."""
        if not isinstance(stage, PrefetchedStage):
            return None
        mark = StepTime(done, time.monotonic(), stage.batches.waited)
        first, last = self._first.setdefault(stage.name, mark), self._last.get(stage.name)
        self._last[stage.name] = mark
        return (last.until(mark, stage.config.batch), first.until(mark, stage.config.batch)) if last else None
