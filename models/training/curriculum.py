"""The curriculum: how hard a stage's pictures are, and how many refinement steps are unrolled, as its steps go by."""

from __future__ import annotations

from dataclasses import dataclass

from cliprl.models.config.config import CurriculumRange


@dataclass(frozen=True, slots=True)
class Curriculum:
    """What a recipe's `growth` means for a stage of so many `steps`: everything grows evenly, then stays."""

    growth: CurriculumRange
    steps: int

    def progress(self, step: int) -> float:
        """How far the growth has come, 0..1; at once at its end where it takes no steps."""
        over = self.growth.over * self.steps
        return min(1.0, step / over) if over else 1.0

    def severity(self, step: int) -> float:
        """The worst corruption at a step, 0..5."""
        return self._between(self.growth.severity, step)

    def zoom(self, step: int) -> float:
        """How much of a picture's width a view spans at most at a step."""
        return self._between(self.growth.zoom, step)

    def unroll(self, step: int) -> int:
        """How many refinement steps are taken at a step of the training."""
        return round(self._between(self.growth.unroll, step))

    def _between(self, pair: tuple[float, float], step: int) -> float:
        first, last = pair
        return first + (last - first) * self.progress(step)
