"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Mapping

from cliprl.models.training.checkpoint import TrainingStage
from cliprl.models.training.throughput import Pace


class TrainingCallback:
    """Is told, and says nothing. What wants to know more is a subclass."""

    def report(self, stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
        """After every step: the stage, its steps done, and the step's losses."""

    def paced(self, stage: TrainingStage, pace: Pace) -> None:
        """At a stage's end: how fast it was, and how much of it went by waiting for data."""

    def drawing(self, done: int, total: int) -> None:
        """While scenes are drawn: how many of how many."""

    def scoring(self, done: int, total: int) -> None:
        """While the finished bundle is scored: how many frames of how many."""
