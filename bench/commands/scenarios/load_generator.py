"""How MLPerf Inference asks: which frame is due when, in each scenario, and how it judges the tail of the latencies.

The rules (MLCommons inference policies): SingleStream and MultiStream ask again as soon as the last query is answered, for one
sample and for eight; Offline asks for everything at once; Server asks at Poisson arrivals. A run lasts at least 600 s.
SingleStream is judged by the 90th percentile of the latency, MultiStream by the 99th, Server by the largest rate of arrivals that
keeps its 99th percentile within a limit, Offline by its throughput. Percentiles are estimates with 99 % confidence
("early stopping").
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from cliprl.pipeline import Frame
from cliprl.pipeline.core.interfaces import PlaneAllocator
from cliprl.pipeline.sources import FrameSource

SINGLE_STREAM, MULTI_STREAM, OFFLINE, SERVER = SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")
# By the rules: seconds of a run, samples of a MultiStream query, percentile of each scenario, confidence of the estimate.
RULE_SECONDS, MULTI_SAMPLES, CONFIDENCE = 600.0, 8, 0.99
PERCENTILES = {SINGLE_STREAM: 0.90, MULTI_STREAM: 0.99, SERVER: 0.99}
# Queries for which the server's arrivals are drawn beforehand, per second of its rate: more than it can need.
_SPARE = 2.0


def tolerated(queries: int, percentile: float) -> int:
    """The most slow queries with which a run still shows, with 99 % confidence, the percentile to be faster; -1 for too few."""
    slow, total, found = 1 - percentile, 0.0, -1
    for count in range(queries + 1):
        ways = math.lgamma(queries + 1) - math.lgamma(count + 1) - math.lgamma(queries - count + 1)
        total += math.exp(ways + count * math.log(slow) + (queries - count) * math.log(percentile))
        if total > 1 - CONFIDENCE:
            break
        found = count
    return found


def early_stopping_estimate(latencies: Sequence[float], percentile: float) -> float:
    """The latency that the percentile does not exceed, with 99 % confidence; NaN for too few queries."""
    slow = tolerated(len(latencies), percentile)
    return float(np.sort(latencies)[len(latencies) - slow]) if slow >= 1 else math.nan


def queries_needed(percentile: float) -> int:
    """The fewest queries from which the estimate can be made."""
    count = 1
    while tolerated(count, percentile) < 1:
        count += 1
    return count


@dataclass(frozen=True, slots=True)
class Load:
    """A scenario for `seconds`: `samples` frames a query, `rate` arrivals a second (Server), or `total` samples (Offline)."""

    scenario: str
    seconds: float
    samples: int = 1
    rate: float = 0.0
    total: int = 0
    seed: int = 0


class QuerySource(FrameSource):
    """A source that gives frames of a library, in their order and over again, when a scenario asks for them.

    `complete` is called for each frame that was answered. `issued` holds the moment at which each sample was due,
    `answered` that of its answer, in `time.monotonic()`.
    """

    def __init__(self, library: Sequence[Frame], like: FrameSource, load: Load) -> None:
        super().__init__(replace(like.info, frames=None, seconds=None, live=False, passthrough=None))
        self.load, self.issued, self.answered = load, list[float](), list[float]()
        self._library = library
        self._progress = threading.Condition()
        self._start = math.nan
        count = math.ceil(load.rate * load.seconds * _SPARE) + 8 if load.rate else 0
        self._arrivals = np.cumsum(np.random.default_rng(load.seed).exponential(1 / max(load.rate, 1e-9), count))

    def complete(self) -> None:
        """Record the answer to the oldest frame without one."""
        with self._progress:
            self.answered.append(time.monotonic())
            self._progress.notify_all()

    def close(self) -> None:
        """Release a reader that waits for an answer."""
        super().close()
        with self._progress:
            self._progress.notify_all()

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        number = len(self.issued)
        if math.isnan(self._start):
            self._start = time.monotonic()
        due = self._due(number)
        if due is None:
            return None
        known = self._library[number % len(self._library)]
        luma, chroma = allocate(*known.luma.shape)
        luma[:], chroma[:] = known.luma, known.chroma
        self.issued.append(due)
        frame = replace(known, luma=luma, chroma=chroma, index=number, pts=number, time_base=Fraction(1, 25))
        frame.times, frame.durations, frame.threads = {}, {}, {}
        return frame

    def _due(self, number: int) -> float | None:
        """Wait until a sample is due, and return since when; None at the end of the run."""
        load, now = self.load, time.monotonic()
        if load.scenario == OFFLINE:
            return self._start if number < load.total else None
        if load.scenario == SERVER:
            due = self._start + float(self._arrivals[number])
            if due - self._start > load.seconds or number + 1 == len(self._arrivals):
                return None
            time.sleep(max(0.0, due - now))
            return due
        if number % load.samples:
            return self.issued[-1]
        with self._progress:
            self._progress.wait_for(lambda: len(self.answered) >= number or self.closed)
        now = time.monotonic()
        return None if now - self._start > load.seconds or self.closed else now

    def latencies(self) -> list[float]:
        """Milliseconds of each query, from the moment it was due to the answer to its last sample."""
        size = self.load.samples
        ends = range(size - 1, len(self.answered), size)
        return [1000 * (self.answered[i] - self.issued[i]) for i in ends]

    def throughput(self) -> float:
        """Answered samples a second."""
        return len(self.answered) / (self.answered[-1] - self._start) if self.answered else math.nan
