"""What a segmenting process is equipped with: the segmenter of a bundle."""

from __future__ import annotations

from dataclasses import dataclass

from cliprl.engines import Bundle
from cliprl.pipeline.segment.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Equip:
    """Makes a `Segmenter` with these arguments, in the process that is to use it."""

    bundle: Bundle | str = "small"
    device: str = "cpu"
    steps: int | None = None
    budget_ms: float | None = None
    precision: str = "auto"
    threads: int = 0

    def __call__(self) -> Segmenter:
        """Load the bundle and compile its networks."""
        return Segmenter(
            self.bundle,
            steps=self.steps,
            budget_ms=self.budget_ms,
            precision=self.precision,
            threads=self.threads,
        )
