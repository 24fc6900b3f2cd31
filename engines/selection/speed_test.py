"""Find the fastest of several engines of one network. They run in turn, so that a busy machine slows all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from cliprl.engines.backends.engine import Engine
from cliprl.engines.bundle.bundle import Bundle

# The most runs of each engine that count, and those before them that only warm it.
RUNS, WARM_UP_RUNS = 30, 3
# The test ends after this number of turns in which no engine got faster than this share of its fastest run.
SETTLED_TURNS, FASTER = 6, 0.99
# What a less accurate engine must gain: for less than a twentieth no label is given away.
MARGIN = 0.95


def run_speed_test(engines: Mapping[str, Engine], bundle: Bundle) -> dict[str, float]:
    """Milliseconds of each encoder's fastest run on random images; what disturbs a run can only make it longer."""
    size = next(iter(engines.values())).inputs["image"].shape
    image = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    inputs = {"image": image, "text": bundle.embeddings}
    fastest, latest = dict.fromkeys(engines, float("inf")), 0
    for turn in range(WARM_UP_RUNS + RUNS):
        for name, engine in engines.items():
            start = time.perf_counter()
            engine.run(inputs)
            ms = (time.perf_counter() - start) * 1000
            if turn >= WARM_UP_RUNS:
                latest = turn if ms < FASTER * fastest[name] else latest
                fastest[name] = min(fastest[name], ms)
        if latest and turn - latest >= SETTLED_TURNS:
            break
    return fastest


def ranked(times: Mapping[str, float]) -> list[str]:
    """The names by time; the first given, which is the most accurate, stays first unless another gains the MARGIN."""
    order = sorted(times, key=lambda name: times[name])
    first = next(iter(times), None)
    if first is not None and times[order[0]] > MARGIN * times[first]:
        order.remove(first)
        order.insert(0, first)
    return order
