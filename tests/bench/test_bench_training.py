"""`cliprl-bench training`: a recipe's pace as a user measures it, and a loader that is planted slow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import NETWORK
from virtual_time import VirtualClock, VirtualLoader

from cliprl.bench.cli import app
from cliprl.bench.commands import training
from cliprl.bench.harness.result import read_result
from cliprl.bench.harness.timing import BenchJob
from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.data import batch_loader
from cliprl.models.training import throughput
from cliprl.models.training.stages import supervised

SETTINGS = (
    *("data.scenes=2", "data.policy_scenes=1", "data.height=96", "data.width=120", "data.workers=1"),
    *("supervised.batch=2", "reinforcement.batch=2"),
)
STAGES = ("supervised", "reinforcement")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(f"name = 'tiny'\n{NETWORK}")
    return path


def test_the_command_measures_both_stages_and_the_loader(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "training.json"
    words = [str(recipe), "--device", "cpu", "--rounds", "1", "--seconds", "0.2", "--warm-up", "0", "-o", str(file)]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["cliprl-bench", "training", *words, *settings])
    assert run_app(app, "cliprl-bench") == 0
    result = read_result(file)
    assert result.cases() == [*STAGES, training.LOADING]
    for stage in STAGES:
        images, waiting = result.find(stage, "pictures"), result.find(stage, "waiting for data")
        assert images is not None
        assert waiting is not None
        assert images.digest().p50 > 0
        assert 0 <= waiting.digest().p50 <= 100
    assert result.bundle["name"] == "recipe tiny"
    assert "--set supervised.batch=2" in result.command
    assert str(tmp_path) not in file.read_text()


def test_planted_slow_loader_shows_as_the_stages_wait(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In virtual time: a step takes 0.1 s beside its loader, a batch 0.02 s or 0.5 s."""
    clock, learn = VirtualClock(), supervised.Supervised.step

    def step(stage: supervised.Supervised, index: int) -> Any:
        clock.sleep(0.1)
        return learn(stage, index)

    for module in (training, throughput, batch_loader):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(supervised.Supervised, "step", step)
    job = BenchJob("", rounds=1, seconds=0.6, warm_up=0, spare=0)
    waits, paces = [], []
    for seconds in (0.02, 0.5):
        monkeypatch.setattr(batch_loader, "ThreadPoolExecutor", lambda *_, s=seconds, **__: VirtualLoader(clock, s))
        answer = training.one_round(str(recipe), SETTINGS, "cpu", 1, tmp_path, job)
        waits.append(answer["supervised"]["waiting for data"][0])
        paces.append(answer[training.LOADING]["pictures"][0])
    assert waits[0] == pytest.approx(0)
    assert waits[1] == pytest.approx(100 * 0.4 / 0.5)
    assert paces == pytest.approx([2 / 0.02, 2 / 0.5])


def test_an_unknown_recipe_and_device_are_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for words, told in ((["nowhere"], "no recipe 'nowhere'"), (["small", "--device", "tpu"], "no device 'tpu'")):
        monkeypatch.setattr(sys, "argv", ["cliprl-bench", "training", *words])
        assert run_app(app, "cliprl-bench") == 2
        assert told in capfd.readouterr().err
