"""Statistics of a run: frames, rate, drops, and the duration of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cliprl.pipeline.core.confidence import quantiles
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation

# The stages of a frame's way, in order, and the latency from one end of it to the other.
STAGES = ("decode", "prepare", "encode", "refine", "draw", "write")
END_TO_END = "end to end"
# Number of latest frames for the percentiles. It bounds the memory of a long run.
MAX_SAMPLES = 65_536


class StatisticsRecorder:
    """Collects one number a stage a frame, without growing."""

    def __init__(self) -> None:
        self._samples: NDArray[np.float32] = np.full((len(STAGES) + 1, MAX_SAMPLES), np.nan, np.float32)
        self._started = time.monotonic()
        self._cpu_started = time.process_time()
        self._ended: tuple[float, float] | None = None
        self.frames = self.damaged = self.steps = self.segmented = 0

    def add(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Count a frame that has passed every stage."""
        column = self.frames % MAX_SAMPLES
        for row, stage in enumerate(STAGES):
            self._samples[row, column] = frame.durations.get(stage, np.nan)
        self._samples[-1, column] = frame.elapsed("captured", "write")
        self.frames += 1
        self.damaged += frame.damaged
        if segmentation is not None:
            self.segmented += 1
            self.steps += segmentation.steps

    def end(self) -> None:
        """The run is over: what follows is not counted."""
        self._ended = self._ended or (time.monotonic(), time.process_time())

    def summary(self, *, dropped: int, damaged: int, interrupted: bool, notes: Iterable[str]) -> Summary:
        """The run so far. `damaged` is the source's own count: it also knows of frames that were lost."""
        now, cpu = self._ended or (time.monotonic(), time.process_time())
        return Summary(
            frames=self.frames,
            seconds=now - self._started,
            cpu_seconds=cpu - self._cpu_started,
            dropped=dropped,
            damaged=max(damaged, self.damaged),
            mean_steps=self.steps / self.segmented if self.segmented else 0.0,
            interrupted=interrupted,
            latency={
                name: _latency(row[: self.frames])
                for name, row in zip((*STAGES, END_TO_END), self._samples, strict=True)
            },
            notes=tuple(notes),
        )


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds: median, 95th and 99th percentile, largest. NaN where the stage did not run."""

    p50: float
    p95: float
    p99: float
    max: float


def _latency(seconds: NDArray[np.float32]) -> Latency:
    known = seconds[~np.isnan(seconds)] * 1000
    if not len(known):
        return Latency(*[float("nan")] * 4)
    return Latency(*(float(v) for v in (*quantiles(known, (0.5, 0.95, 0.99)), known.max())))


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
