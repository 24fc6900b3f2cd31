"""The refinement loop: steps, early stop and deadline, with a policy and a clock that the test controls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from fake_engine import FakeEngine

from cliprl.engines import CompiledBundle, open_bundle
from cliprl.pipeline.segment import refinement
from cliprl.pipeline.segment.refinement import RefinementLoop
from cliprl.pipeline.segment.segmenter import Segmenter

FEATURES = np.zeros((1, 4, 8, 10), np.float32)
BASE = np.random.default_rng(0).normal(size=(1, 3, 8, 10)).astype(np.float32)
TEXT = np.eye(2, dtype=np.float32)


class Clock:
    """A clock that only moves when a step is taken."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class AddOne(FakeEngine):
    """A policy that adds 1 to every logit, says that a fixed share moved, and takes a fixed time."""

    def __init__(self, clock: Clock, seconds: float = 0.002, moved: float = 0.5) -> None:
        self.clock, self.seconds, self.moved = clock, seconds, moved

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        assert set(inputs) == {"features", "logits", "base", "prior", "text"}
        self.clock.now += self.seconds
        return {"refined": inputs["logits"] + 1, "moved": np.float32(self.moved)}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(refinement, "time", clock)
    return clock


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_each_step_acts_on_the_last_ones_result(clock: Clock, steps: int) -> None:
    refined = RefinementLoop(AddOne(clock), steps, TEXT)(FEATURES, BASE, BASE)
    np.testing.assert_allclose(refined.logits, BASE + steps)
    assert refined.steps == steps


def test_the_base_is_not_written_to(clock: Clock) -> None:
    base = BASE.copy()
    RefinementLoop(AddOne(clock), 2, TEXT)(FEATURES, base, base)
    np.testing.assert_array_equal(base, BASE)


def test_it_stops_when_the_policy_leaves_the_mask_alone(clock: Clock) -> None:
    refined = RefinementLoop(AddOne(clock, moved=0.0), 5, TEXT)(FEATURES, BASE, BASE)
    assert refined.steps == 1
    assert refined.moved == 0.0


@pytest.mark.parametrize(("budget", "steps"), [(0.0, 0), (0.0019, 0), (0.0021, 1), (0.0041, 2), (1.0, 5)])
def test_a_deadline_drops_steps(clock: Clock, budget: float, steps: int) -> None:
    refiner = RefinementLoop(AddOne(clock), 5, TEXT)
    refiner(FEATURES, BASE, BASE)
    start = clock.now
    assert refiner(FEATURES, BASE, BASE, deadline=start + budget).steps == steps
    assert clock.now <= start + budget


def test_one_slow_moment_does_not_end_refinement_for_good(clock: Clock) -> None:
    policy = AddOne(clock, seconds=0.5)
    refiner = RefinementLoop(policy, 1, TEXT)
    refiner(FEATURES, BASE, BASE)
    policy.seconds = 0.001
    taken = [refiner(FEATURES, BASE, BASE, deadline=clock.now + 0.01).steps for _ in range(400)]
    assert taken[0] == 0
    assert taken[-1] == 1


@pytest.mark.parametrize(("budget_ms", "runs"), [(None, 0), (500.0, 2)])
def test_only_a_budget_runs_networks_before_the_first_frame(clock: Clock, budget_ms: float | None, runs: int) -> None:
    bundle, seen = open_bundle("small"), list[str]()
    grid = bundle.manifest.height // bundle.manifest.stride, bundle.manifest.width // bundle.manifest.stride

    class Encoder(AddOne):
        def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
            seen.append("encoder")
            return {"features": FEATURES, "logits": np.zeros((1, len(bundle.manifest.classes), *grid), np.float32)}

    engines = CompiledBundle(Encoder(clock), AddOne(clock), {})
    Segmenter(bundle, engines=engines, budget_ms=budget_ms)
    assert len(seen) == runs
