"""What a run leaves to look at: event files that TensorBoard reads back, bars that move, silence where it is asked for."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import NETWORK
from virtual_time import VirtualClock, VirtualLoader

from cliprl.models.config.config import CurriculumRange, Recipe, SupervisedConfig
from cliprl.models.config.load import load_recipe
from cliprl.models.data import batch_loader
from cliprl.models.data.augmentation.augment import Geometry, Photometry
from cliprl.models.data.batch_loader import BatchLoader, Mixture, labelled_batch
from cliprl.models.data.sets.rendered import RenderedScenes, RenderedSpec
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.training import throughput
from cliprl.models.training.callbacks import ProgressDisplay, TrainingCallback
from cliprl.models.training.checkpoint import CheckpointWriter, TrainingStage, run_stage
from cliprl.models.training.curriculum import Curriculum
from cliprl.models.training.stages.supervised import Supervised
from cliprl.models.training.training import log_steps
from cliprl.pipeline.synthetic import SCENE_CLASSES

TINY = f"""
draw_every = 2
{NETWORK}[supervised]
steps = 4
batch = 2
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return load_recipe(path)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    which = RenderedSpec(first=7, count=2, frames=2, height=64, width=96)
    return Mixture([RenderedScenes(which, tmp_path_factory.mktemp("scenes"), 1, lambda done, total: None)], [1.0])


def stage_of(recipe: Recipe, mixture: Mixture) -> Supervised:
    torch.manual_seed(0)
    return Supervised(ClipSegmenter(recipe.network), mixture, SCENE_CLASSES, recipe)


def read_back(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def test_the_log_is_read_back_by_tensorboard(recipe: Recipe, mixture: Mixture, tmp_path: Path) -> None:
    """Also across a run that was cut off after a step of which no checkpoint tells: that step is seen once."""
    keeper = CheckpointWriter(tmp_path, 2)
    seen = []

    def cut(stage: TrainingStage, done: int, losses: Mapping[str, float]) -> None:
        report(stage, done, losses)
        seen.append(losses)
        if done == 3:
            raise KeyboardInterrupt

    with log_steps(recipe, tmp_path, TrainingCallback()) as report, pytest.raises(KeyboardInterrupt):
        run_stage(stage_of(recipe, mixture), keeper, cut)
    # TensorBoard reads event files in the order of their names: the second, the process, then a number without zeros
    # before it. A run that goes on is another process, and never in the same second.
    time.sleep(1)
    with log_steps(recipe, tmp_path, TrainingCallback()) as report:
        run_stage(stage_of(recipe, mixture), keeper, report)
    events = read_back(tmp_path / "logs" / "supervised")
    assert [event.step for event in events.Scalars("loss/cross-entropy")] == [1, 2, 3, 4]
    assert [event.value for event in events.Scalars("loss/dice")][:3] == pytest.approx([one["dice"] for one in seen])
    assert {"rate/0", "rate/1", "images per second", "waiting for data"} <= set(events.Tags()["scalars"])
    assert all(event.value > 0 for event in events.Scalars("images per second"))
    images = events.Images("frame, truth, found")
    assert [event.step for event in images] == [2, 4]
    assert (images[0].width, images[0].height) == (3 * 96, 2 * 64)


class Sleeper:
    """A stage of which a batch takes so long to make, and a step so long to learn from it."""

    name, steps, config = "sleeper", 9, SupervisedConfig(batch=4)

    def __init__(self, clock: VirtualClock, learning: float) -> None:
        self.batches: BatchLoader[None] = BatchLoader(lambda step: None, 1)
        self.clock, self.learning = clock, learning

    def step(self, index: int) -> Mapping[str, float]:
        self.batches(index)
        self.clock.sleep(self.learning)
        return {}

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        pass


def test_stage_reports_its_throughput_and_its_wait_for_data(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loader that is planted slow is seen, in the log and on the terminal; one that is ready is not waited for."""
    clock = VirtualClock()
    for module in (throughput, batch_loader):
        monkeypatch.setattr(module, "time", clock)
    for place, loading, learning, share in (("slow", 0.1, 0.02, 0.8), ("ready", 0.02, 0.1, 0.0)):
        monkeypatch.setattr(batch_loader, "ThreadPoolExecutor", lambda *_, s=loading, **__: VirtualLoader(clock, s))
        stage = Sleeper(clock, learning)
        with ProgressDisplay.open() as display, log_steps(recipe, tmp_path / place, display) as report:
            run_stage(stage, CheckpointWriter(tmp_path), report)
        stage.batches.close()
        (tmp_path / "sleeper.pt").unlink()
        waiting = [e.value for e in read_back(tmp_path / place / "logs" / "sleeper").Scalars("waiting for data")]
        assert waiting == pytest.approx(8 * [share])
    told = re.findall(r"sleeper: ([\d.]+) images/s, ([\d.]+)% of the time waiting for data", capsys.readouterr().err)
    assert told == [("40.0", "80.0"), ("40.0", "0.0")]


@pytest.mark.parametrize("stride", [4, 1])
def test_a_picture_shows_the_truth_beside_the_frame(recipe: Recipe, mixture: Mixture, stride: int) -> None:
    stage = stage_of(replace(recipe, supervised=replace(recipe.supervised, stride=stride)), mixture)
    assert stage.preview() is None
    stage.step(0)
    image = stage.preview()
    assert image is not None
    frame, truth = image[:64, :96].astype(int), image[:64, 96:192].astype(int)
    _, labels = labelled_batch(mixture, 2, (64, 96), recipe.seed, 0, stride=stride)
    inside = labels[0].numpy().repeat(stride, 0).repeat(stride, 1) > 0
    assert np.array_equal(frame[~inside], truth[~inside])
    assert not inside.any() or np.abs(frame - truth)[inside].max() > 10


def test_a_quiet_display_says_nothing(recipe: Recipe, mixture: Mixture, capsys: pytest.CaptureFixture[str]) -> None:
    stage = stage_of(recipe, mixture)
    for quiet in (True, False):
        with ProgressDisplay.open(quiet, prefix="fold 1 ") as display:
            display.on_scene(2, 2)
            display.on_step(stage, 4, {"dice": 0.25})
        text = capsys.readouterr().err
        assert ("fold 1 supervised 4/4  dice 0.250" in text) == (not quiet)
        assert bool(text) == (not quiet)


def test_a_stage_that_comes_again_begins_its_mean_anew(
    capsys: pytest.CaptureFixture[str], mixture: Mixture, recipe: Recipe
) -> None:
    """As in the rounds of weak training, between which frames are labelled."""
    stage = stage_of(recipe, mixture)
    with ProgressDisplay.open() as display:
        for dice in (0.75, 0.25):
            for done in range(1, 5):
                display.on_step(stage, done, {"dice": dice})
            display.on_score(4, 4)
    assert re.findall(r"supervised 4/4  dice ([\d.]+)", capsys.readouterr().err) == ["0.750", "0.250"]


def test_the_curriculum_grows_evenly_and_then_stays() -> None:
    growth = Curriculum(CurriculumRange(over=0.5, severity=(1.0, 5.0), zoom=(0.6, 1.2), unroll=(1, 4)), 100)
    assert [growth.severity(step) for step in (0, 25, 50, 99)] == [1.0, 3.0, 5.0, 5.0]
    assert [growth.zoom(step) for step in (0, 25, 99)] == pytest.approx([0.6, 0.9, 1.2])
    assert [growth.unroll(step) for step in (0, 16, 17, 49, 50)] == [1, 2, 2, 4, 4]
    at_once = Curriculum(CurriculumRange(over=0.0, severity=(1.0, 5.0)), 100)
    assert at_once.severity(0) == 5.0


def test_a_recipe_tells_the_curriculum(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[curriculum.supervised]\nseverity = [0, 3]\nover = 1\n")
    recipe = load_recipe(tmp_path / "a.toml", ["curriculum.reinforcement.unroll=[1, 3]"])
    assert recipe.curriculum.supervised == CurriculumRange(over=1.0, severity=(0.0, 3.0))
    assert recipe.curriculum.reinforcement.unroll == (1, 3)
    assert recipe.curriculum.reinforcement.severity == (1.0, 5.0)


def test_narrow_views_magnify_and_calm_cameras_change_nothing() -> None:
    spans = []
    for widest in (0.6, 1.25):
        drawn = [Geometry.draw(np.random.default_rng(n), (60, 80), (60, 80), widest).matrix for n in range(60)]
        spans.append(np.mean([np.sqrt(abs(np.linalg.det(m[:, :2]))) for m in drawn]))
    assert spans[0] < 0.7 * spans[1]
    assert all(Photometry.draw(np.random.default_rng(n), 0.0).severity == 0 for n in range(9))


def test_the_supervised_stage_follows_its_curriculum(recipe: Recipe, mixture: Mixture, tmp_path: Path) -> None:
    """Its pictures at a step are those of that step's severity and zoom."""
    (tmp_path / "a.toml").write_text(
        TINY + "[curriculum.supervised]\nseverity = [0, 4]\nzoom = [0.5, 1.0]\nover = 1.0\n"
    )
    stage = stage_of(load_recipe(tmp_path / "a.toml"), mixture)
    expected = labelled_batch(mixture, 2, (64, 96), 0, 2, severity=2.0, zoom=0.75)[0]
    assert torch.equal(stage.batches(2)[0], expected)
    assert not torch.equal(stage_of(recipe, mixture).batches(2)[0], expected)


def test_mixed_precision_learns_nearly_the_same(
    recipe: Recipe, mixture: Mixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cliprl.models.training.parallel.cpu_has_bf16", lambda: True)
    (tmp_path / "a.toml").write_text('precision = "bf16"\n' + TINY)
    full, mixed = (stage_of(r, mixture).step(0) for r in (recipe, load_recipe(tmp_path / "a.toml")))
    assert mixed == pytest.approx(full, rel=0.02)
    assert mixed != full
