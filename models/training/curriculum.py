"""The curriculum: corruption, zoom and unrolled refinement steps as a function of the training step."""

from __future__ import annotations

from dataclasses import dataclass

from cliprl.models.config.config import CurriculumRange


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The difficulty of a stage of `steps` steps: each value grows linearly over the recipe's range, then stays."""

    growth: CurriculumRange
    steps: int

    def progress(self, step: int) -> float:
        """Return the share of the growth that is complete, 0..1; 1 if the growth takes no steps."""
        over = self.growth.over * self.steps
        return min(1.0, step / over) if over else 1.0

    def severity(self, step: int) -> float:
        """Return the strongest corruption at a step, 0..5."""
        return self._between(self.growth.severity, step)

    def zoom(self, step: int) -> float:
        """Return the largest share of the image width that a view spans at a step."""
        return self._between(self.growth.zoom, step)

    def unroll(self, step: int) -> int:
        """Return the number of refinement steps at a training step."""
        return round(self._between(self.growth.unroll, step))

    def _between(self, pair: tuple[float, float], step: int) -> float:
        first, last = pair
        return first + (last - first) * self.progress(step)
