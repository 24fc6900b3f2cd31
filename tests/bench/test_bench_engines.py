"""`cliprl-bench engines`: what is timed is what would serve, and what would not is said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cliprl.bench.cli import app
from cliprl.bench.commands import engines
from cliprl.bench.harness import timing
from cliprl.bench.harness.result import Result, read_result
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob
from cliprl.engines import EngineCache
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.selection import accuracy_gate
from cliprl.engines.selection.load_engines import serve


def here(function: Callable[..., Any], *arguments: Any, on_report: object = None) -> Any:
    """In this process, where what a test has changed holds."""
    return function(*arguments)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "in_fresh_process", here)
    monkeypatch.setattr(timing, "in_fresh_process", here)


def one_engine(bundle: str, device: str) -> list[tuple[str, str]]:
    """In place of all that the CPU runs, where one shows as much."""
    return [("openvino", "f32")]


def measured(batches: tuple[int, ...]) -> Result:
    wanted = BenchJob("", rounds=2, seconds=0.01, warm_up=0.0, spare=0)
    with ResultSession("engines", None, wanted) as session:
        return engines.measure(session, wanted, lambda text: None, batches=batches)


def check(result: Result, case: str, names: set[str]) -> None:
    found = [series for series in result.series if series.case == case]
    assert {series.name for series in found} == names
    assert all(len(series.rounds) == 2 and series.digest().p50 > 0 for series in found)


def test_every_precision_is_timed_alone_and_one_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    result = measured((1,))
    for backend, precision in engines.engine_names("small", "cpu"):
        check(result, f"{backend} {precision}", {"encoder", "refinement step"})
    assert result.notes == ()
    monkeypatch.setattr(engines, "engine_names", one_engine)
    result = measured((1, 2))
    check(result, "openvino f32", {"encoder", "refinement step"})
    check(result, "openvino f32, batch 2", {"encoder"})


def test_a_batch_runs_all_its_pictures() -> None:
    variant = engines._find_variant("small", "cpu", "openvino", "f32", 2)
    logits = serve(variant, EngineCache()).encoder.run(engines._inputs(variant))["logits"]
    assert logits.shape[:2] == (2, len(variant.bundle.embeddings))
    assert logits[0].std() > 0
    assert abs(logits[0] - logits[1]).max() > 0


def test_what_the_gate_refuses_has_no_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(accuracy_gate, "MIN_COSINE", 1.1)
    monkeypatch.setattr(engines, "engine_names", one_engine)
    # Verdicts of before are in the cache of the tests: here they would not be found again.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "result.json"
    arguments = ["--rounds", "1", "--spare", "0", "--seconds", "0.1", "--warm-up", "0", "-o", str(file)]
    monkeypatch.setattr(sys, "argv", ["cliprl-bench", "engines", *arguments])
    assert run_app(app, "cliprl-bench") == 0
    result = read_result(file)
    assert result.series == ()
    assert len(result.notes) == 1
    assert all("refused by the accuracy gate" in note for note in result.notes)
    assert "--device cpu --batch 1" in result.command
    assert "refused" in capfd.readouterr().out


def test_an_unknown_device_is_misuse(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["cliprl-bench", "engines", "--device", "tpu"])
    assert run_app(app, "cliprl-bench") == 2
    error = capfd.readouterr().err.strip().splitlines()
    assert "tpu" in error[-1]
    assert "cpu" in error[-1]
