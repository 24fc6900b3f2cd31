"""Statistics of a run: frames, rate, drops, and the duration of each stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.confidence import quantiles

# The stages of a frame's way, in order, and the latency from one end of it to the other.
STAGES = ("decode", "prepare", "encode", "refine", "draw", "write")
END_TO_END = "end to end"
# Number of latest frames for the percentiles. It bounds the memory of a long run.
MAX_SAMPLES = 65_536


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds: median, 95th and 99th percentile, largest. NaN where the stage did not run."""

    p50: float
    p95: float
    p99: float
    max: float


def latency_of(seconds: NDArray[np.float32]) -> Latency:
    """Return the latency of durations in seconds, float32 (n,); NaN is left out."""
    known = seconds[~np.isnan(seconds)] * 1000
    if not len(known):
        return Latency(*[float("nan")] * 4)
    return Latency(*(float(v) for v in (*quantiles(known, (0.5, 0.95, 0.99)), known.max())))


def latencies_of(samples: NDArray[np.float32]) -> dict[str, Latency]:
    """Return the latencies of the stages and of the whole way from seconds, float32 (stages + 1, n), by name."""
    return {name: latency_of(row) for name, row in zip((*STAGES, END_TO_END), samples, strict=True)}


@dataclass(frozen=True, slots=True)
class Summary:
    """A finished (or interrupted) run. `cpu_seconds` is the CPU time of the whole process, all threads.

    `latency` covers the latest 65,536 frames: each stage's own work, waiting not included, and "end to end" from the end of
    decoding to the end of writing, waiting included.
    """

    frames: int
    seconds: float
    cpu_seconds: float
    dropped: int
    damaged: int
    mean_steps: float
    interrupted: bool
    latency: dict[str, Latency]
    notes: tuple[str, ...] = field(default=())

    @property
    def fps(self) -> float:
        """Frames finished per second of wall time, start-up of the stream included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; times in milliseconds unless named otherwise, null where a stage did not run."""
        latency = {
            name: {key: _finite(getattr(value, key)) for key in ("p50", "p95", "p99", "max")}
            for name, value in self.latency.items()
        }
        return {
            "frames": self.frames,
            "seconds": round(self.seconds, 4),
            "fps": round(self.fps, 3),
            "cpu_seconds": round(self.cpu_seconds, 4),
            "dropped": self.dropped,
            "damaged": self.damaged,
            "mean_steps": round(self.mean_steps, 4),
            "interrupted": self.interrupted,
            "latency_ms": latency,
            "notes": list(self.notes),
        }


def _finite(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
