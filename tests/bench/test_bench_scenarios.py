"""The scenarios of MLPerf Inference: who asks when, how the tail is judged, and what a machine tells of its energy."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from cliprl.bench.commands.scenarios import scenarios
from cliprl.bench.commands.scenarios.load_generator import (
    MULTI_STREAM,
    OFFLINE,
    SERVER,
    SINGLE_STREAM,
    Load,
    QuerySource,
    early_stopping_estimate,
    queries_needed,
    tolerated,
)
from cliprl.bench.commands.scenarios.scenarios import ScenarioRun, best_rate, keeps_limit, scenario_series, validity
from cliprl.bench.commands.stream import rate_series
from cliprl.bench.harness.meters import EnergyMeter
from cliprl.bench.harness.timing import BenchJob, TaskOutcome, TimedRun
from cliprl.pipeline import open_source
from cliprl.pipeline.sources import FrameSource

DEMO = "demo:?seconds=1&size=96x64&rate=6"


def queries(load: Load, answer_after: float = 0.0) -> QuerySource:
    """Read a load to its end; each sample is answered this many seconds after it was read."""
    with open_source(DEMO) as opened:
        assert isinstance(opened, FrameSource)
        library = list(opened)
        source = QuerySource(library, opened, load)
    while (frame := source.read()) is not None:
        assert frame.index == len(source.issued) - 1
        assert (frame.luma == library[frame.index % len(library)].luma).all()
        time.sleep(answer_after)
        source.complete()
    return source


def test_closed_loops_ask_after_the_last_answer() -> None:
    single = queries(Load(SINGLE_STREAM, 0.1), 0.01)
    assert all(due >= answer for due, answer in zip(single.issued[1:], single.answered, strict=False))
    assert len(single.latencies()) == len(single.answered) >= 1
    assert min(single.latencies()) >= 9.9
    multi = queries(Load(MULTI_STREAM, 0.1, samples=8), 0.001)
    assert len(multi.issued) % 8 == 0
    assert all(len(set(multi.issued[i : i + 8])) == 1 for i in range(0, len(multi.issued), 8))
    assert min(multi.latencies()) >= 7.9  # eight answers of a millisecond


def test_offline_asks_for_everything_at_once() -> None:
    offline = queries(Load(OFFLINE, 0.0, total=20))
    assert len(offline.answered) == 20
    assert len(set(offline.issued)) == 1
    assert offline.throughput() == pytest.approx(20 / (offline.answered[-1] - offline.issued[0]))


def test_arrivals_are_poisson_and_repeat_with_the_seed() -> None:
    with open_source(DEMO) as opened:
        assert isinstance(opened, FrameSource)
        library = [next(iter(opened))]
        loads = [Load(SERVER, 20.0, rate=200.0, seed=seed) for seed in (1, 1, 2)]
        one, again, other = (QuerySource(library, opened, load)._arrivals for load in loads)
    assert (one == again).all()
    assert not np.array_equal(one, other)
    gaps = np.diff(one)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.1)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # as of an exponential distribution
    late = queries(Load(SERVER, 0.2, rate=100.0), 0.03)
    assert late.issued == sorted(late.issued)
    assert late.latencies()[-1] > late.latencies()[0]  # the queue in front of a slow answer counts


@pytest.mark.parametrize("percentile", [0.9, 0.99])
def test_early_stopping_is_the_binomial_bound(percentile: float) -> None:
    for count in (10, 64, 200, 662, 1500):
        slow = tolerated(count, percentile)
        assert slow == -1 or binom.cdf(slow, count, 1 - percentile) <= 0.01
        assert binom.cdf(slow + 1, count, 1 - percentile) > 0.01
    needed = queries_needed(percentile)
    assert (tolerated(needed - 1, percentile), tolerated(needed, percentile)) == (0, 1)
    assert needed == {0.9: 64, 0.99: 662}[percentile]  # as LoadGen states
    assert math.isnan(early_stopping_estimate([1.0] * (needed - 1), percentile))
    values = list(np.random.default_rng(0).permutation(1000) + 1.0)
    assert 1000 * percentile < early_stopping_estimate(values, percentile) <= 1000


def test_the_best_rate_is_found_by_bisection() -> None:
    tried: list[float] = []

    def run(rate: float) -> ScenarioRun:
        tried.append(rate)
        return ScenarioRun([50.0 if rate < 30 else 500.0] * 1000, rate, rate)

    assert best_rate(run, 64.0).rate == pytest.approx(28, abs=2)
    assert tried[0] == 32
    never = best_rate(lambda rate: ScenarioRun([500.0] * 10, rate, rate), 64.0)
    assert next(s.rounds for s in scenario_series(SERVER, [never])) == ((0.0,),)
    assert not keeps_limit([])
    assert keeps_limit([50.0] * 100)
    assert not keeps_limit([50.0] * 90 + [500.0] * 10)
    assert keeps_limit([50.0] * 10_000 + [500.0] * 50)
    assert not keeps_limit([50.0] * 10_000 + [500.0] * 95)  # under 1 %, but not with confidence


def test_runs_are_scaled_and_say_so() -> None:
    few = ScenarioRun([1.0] * 20, 20.0)
    text = validity(SINGLE_STREAM, [few], 20.0)
    assert "0.033 of the 600 s" in text
    assert "20 queries, NOT enough" in text
    assert "needs 64" in text
    assert "1000 queries, enough" in validity(SINGLE_STREAM, [ScenarioRun([1.0] * 1000, 1.0)], 600.0)
    names = [s.name for s in scenario_series(MULTI_STREAM, [few])]
    assert names == ["latency", "99th percentile, early stopping"]


def test_the_pipeline_answers_every_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    job = BenchJob("demo:?seconds=1&size=192x144&rate=8", seconds=0.3, warm_up=0.0)
    tested = scenarios.UnderTest(job)
    run = tested.run(Load(OFFLINE, 0.0, total=11))
    assert len(run.latencies) == 11
    assert run.throughput > 0
    assert run.per_watt is None or run.per_watt > 0
    multi = tested.run(Load(MULTI_STREAM, 0.01, samples=8))
    assert len(multi.latencies) >= 1
    same, iou = scenarios.accuracy_run(replace(job, frames=3))
    assert len(same) == 3
    assert all(50 < share <= 100 for share in (*same, *iou))


def meters(root: Path, values: Sequence[tuple[str, int]]) -> Path:
    for name, microjoules in values:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "name").write_text(f"package-{name[-1]}\n")
        (root / name / "energy_uj").write_text(f"{microjoules}\n")
        (root / name / "max_energy_range_uj").write_text("10000000\n")
    return root


def test_energy_is_read_where_the_machine_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cliprl.bench.harness.meters._gpu_energy", dict)
    assert EnergyMeter(tmp_path).joules() is None
    assert EnergyMeter(tmp_path).names == []
    meters(tmp_path, [("intel-rapl:0", 9_000_000), ("intel-rapl:1", 1_000_000), ("intel-rapl:0:0", 5)])
    meter = EnergyMeter(tmp_path)
    assert meter.names == ["package-0", "package-1"]
    meters(tmp_path, [("intel-rapl:0", 2_000_000), ("intel-rapl:1", 3_000_000)])
    assert meter.joules() == pytest.approx(3 + 2)  # the first counter has wrapped around
    told, silent = TimedRun(TaskOutcome(50), 1.0, 1.0, 5.0), TimedRun(TaskOutcome(50), 1.0, 1.0)
    assert [s.name for s in rate_series([[told]], "a")][-1] == "fps per watt"
    assert rate_series([[told]], "a")[-1].digest().p50 == 10.0
    assert "fps per watt" not in [s.name for s in rate_series([[told], [silent]], "a")]
