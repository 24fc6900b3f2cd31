"""Series of haze, brightness and noise over a case, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from cliprl.pipeline.core.segmentation import DamageEstimate
from cliprl.pipeline.sinks.labels.json_fields import quality_values

# The series, and what the worst value of several frames is.
QUALITY_SERIES: dict[str, Callable[[float, float], float]] = {"haze": max, "brightness": min, "noise": max}
# Impairments of an image that the estimate does not cover.
NOT_MEASURED = ("blood", "blur")
NO_ESTIMATE = "no frame has an estimate, which takes the CPU, a bundle with a restoration, and --steps other than 0"
# With twice as many points, each two become one.
MOST_POINTS = 120


@dataclass(slots=True)
class QualityPoint:
    """Successive frames: indices of the first and the last, seconds, number, and by series the sum and the worst value."""

    first: int
    last: int
    start: float
    end: float
    frames: int
    sums: dict[str, float]
    worst: dict[str, float]

    @classmethod
    def of(cls, index: int, start: float, end: float, found: DamageEstimate) -> QualityPoint:
        """Return the point of one frame."""
        values = quality_values(found)
        return cls(index, index, start, end, 1, values, dict(values))

    def extend(self, later: QualityPoint) -> None:
        """Add the frames of a later point."""
        self.last, self.end, self.frames = later.last, later.end, self.frames + later.frames
        self.sums = {name: value + later.sums[name] for name, value in self.sums.items()}
        self.worst = {name: QUALITY_SERIES[name](value, later.worst[name]) for name, value in self.worst.items()}

    def mean(self, name: str) -> float:
        """The mean of a series over the frames."""
        return self.sums[name] / self.frames


@dataclass(slots=True)
class QualitySeries:
    """The series of a case as points, each of the same number of frames, the last one of fewer."""

    points: list[QualityPoint] = field(default_factory=list)
    _frames_per_point: int = 1

    def add(self, index: int, seconds: float, period: float, found: DamageEstimate) -> None:
        """Add the estimate of a frame that lasts `period` seconds. Frames are added in order."""
        one = QualityPoint.of(index, seconds, seconds + period, found)
        if self.points and self.points[-1].frames < self._frames_per_point:
            self.points[-1].extend(one)
            return
        if len(self.points) == 2 * MOST_POINTS:
            self._halve()
        self.points.append(one)

    def _halve(self) -> None:
        for point, later in zip(self.points[::2], self.points[1::2], strict=True):
            point.extend(later)
        self.points, self._frames_per_point = self.points[::2], 2 * self._frames_per_point

    @property
    def frames(self) -> int:
        """Number of frames with an estimate."""
        return sum(point.frames for point in self.points)

    def mean(self, name: str) -> float:
        """The mean of a series over all frames with an estimate, of which there is one at least."""
        return sum(point.sums[name] for point in self.points) / self.frames

    def worst(self, name: str) -> QualityPoint:
        """The first point that holds the worst value of a series; there is one point at least."""
        value = reduce(QUALITY_SERIES[name], (point.worst[name] for point in self.points))
        return next(point for point in self.points if point.worst[name] == value)

    def to_json(self) -> dict[str, Any]:
        """Return the series as JSON: see the schema "report"."""
        return {
            "frames": self.frames,
            "reason": None if self.points else NO_ESTIMATE,
            "not_measured": list(NOT_MEASURED),
            "series": [self._series(name) for name in QUALITY_SERIES if self.points],
        }

    def _series(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "mean": round(self.mean(name), 2),
            "worst": round(self.worst(name).worst[name], 2),
            "points": [
                {
                    "first": point.first,
                    "last": point.last,
                    "start": round(point.start, 4),
                    "end": round(point.end, 4),
                    "mean": round(point.mean(name), 2),
                    "worst": round(point.worst[name], 2),
                }
                for point in self.points
            ],
        }
