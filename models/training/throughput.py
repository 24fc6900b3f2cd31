"""How fast a stage learns, and how much of its time it waits for data: where that is not near 0, loading is the bottleneck."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from cliprl.models.data.batch_loader import BatchLoader
from cliprl.models.training.checkpoint import TrainingStage


@runtime_checkable
class PrefetchedStage(Protocol):
    """A stage that learns from batches made ahead, whose settings tell the batch."""

    batches: BatchLoader[Any]
    config: Any


@dataclass(frozen=True, slots=True)
class Throughput:
    """What some steps took: steps and pictures of all processes together, seconds in all, and seconds waited for data."""

    steps: int
    pictures: int
    seconds: float
    waited: float

    @property
    def images_per_second(self) -> float:
        """Pictures learned from in a second."""
        return self.pictures / max(self.seconds, 1e-9)

    @property
    def waiting(self) -> float:
        """The share of the time that went by waiting for data, 0..1."""
        return min(1.0, self.waited / max(self.seconds, 1e-9))

    def __str__(self) -> str:
        return f"{self.images_per_second:.1f} pictures/s, {self.waiting:.1%} of the time waiting for data"


@dataclass(frozen=True, slots=True)
class StepTime:
    """Steps done, seconds on the clock, and seconds waited, after a step."""

    done: int
    seconds: float
    waited: float

    def until(self, now: StepTime, batch: int) -> Throughput:
        """The pace from this mark to a later one."""
        steps = now.done - self.done
        return Throughput(steps, steps * batch, now.seconds - self.seconds, now.waited - self.waited)


class ThroughputMeter:
    """Times a stage's steps, from the end of the first that this process makes: that one also starts things up."""

    def __init__(self) -> None:
        self._first: dict[str, StepTime] = {}
        self._last: dict[str, StepTime] = {}

    def after(self, stage: TrainingStage, done: int) -> tuple[Throughput, Throughput] | None:
        """After a step, `done` in all: the pace of that step, and of all that were timed; None for the first."""
        if not isinstance(stage, PrefetchedStage):
            return None
        mark = StepTime(done, time.monotonic(), stage.batches.waited)
        first, last = self._first.setdefault(stage.name, mark), self._last.get(stage.name)
        self._last[stage.name] = mark
        return (last.until(mark, stage.config.batch), first.until(mark, stage.config.batch)) if last else None
