"""Readings of a quiet and of a disturbed host, and results that hold such."""

from __future__ import annotations

from dataclasses import replace

from cliprl.bench.harness.host import HostLog, HostReading
from cliprl.bench.harness.result import Result, Series

QUIET = HostReading(2.0, 1.9, 0.0, 0.004, 0.0, None, 0.6)
STOLEN = replace(QUIET, steal=0.05)


def result_of(fps: float, quiet: int, *readings: HostReading) -> Result:
    """A result with one rate and a round for each reading."""
    host = HostLog(len(readings), ["throttling by heat"], quiet)
    for number, reading in enumerate(readings):
        host.note(number + 1, "cliprl-stream", reading, fps=fps)
    series = Series.of("cliprl-stream", "fps", "FPS", [[fps]])
    bundle = {"name": "b", "sha256": "0" * 64}
    machine = {"cpu": "c", "cores": 2, "gpu": None}
    known = {"name": "i", "size": "1x1"}
    return Result("stream", "c", "2026-01-01", None, machine, known, bundle, {}, (series,), host=host.block())
