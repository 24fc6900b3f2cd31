"""Training on pseudo-labels in rounds, on a network small enough for a test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny import NETWORK

from cliprl.engines import UsageError
from cliprl.models.config.config import Recipe, WeakConfig
from cliprl.models.config.load import checkpoint_settings, load_recipe
from cliprl.models.data.registry import open_dataset
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.training import training, weak_rounds
from cliprl.models.training.callbacks import TrainingCallback
from cliprl.models.training.checkpoint import CheckpointWriter, save_checkpoint
from cliprl.models.training.stages.supervised import Supervised
from cliprl.models.training.weak_rounds import SnapshotEnsemble, _Snapshots, relabelled_recipe, snapshot_steps

CPU = torch.device("cpu")
CLASSES = """consecutive = false
ignore = [255]

[[classes]]
name = "background"
kind = "background"
color = [0, 0, 0]

[[classes]]
name = "tool"
kind = "instrument"
color = [0, 255, 0]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe on six images whose bright half is the tool, with two rounds."""
    torch.set_num_threads(1)
    for folder in ("images", "masks"):
        (tmp_path / "labels" / folder).mkdir(parents=True)
    (tmp_path / "labels" / "classes.toml").write_text(CLASSES, encoding="utf-8")
    for i in range(6):
        mask = np.zeros((64, 96), np.uint8)
        mask[:, : 20 + 10 * i] = 1
        mask[:, 20 + 10 * i : 24 + 10 * i] = 255
        image = np.where(mask[..., None] == 1, 200, 60).astype(np.uint8).repeat(3, axis=2)
        cv2.imwrite(str(tmp_path / "labels" / "images" / f"{i}.png"), image)
        cv2.imwrite(str(tmp_path / "labels" / "masks" / f"{i}.png"), mask)
    file = tmp_path / "tiny.toml"
    file.write_text(
        f'name = "tiny"\n{NETWORK}\n[data]\nworkers = 1\ntrain = ["folder:{tmp_path / "labels"}?share=2"]\n'
        "[contrastive]\nsteps = 0\n[supervised]\nsteps = 4\nbatch = 2\n[reinforcement]\nsteps = 1\nbatch = 2\n"
        "[weak]\nrounds = 2\nsnapshots = 3\ninterval = 1\n",
        encoding="utf-8",
    )
    return load_recipe(file)


def test_the_last_round_trains_on_what_the_first_one_labelled(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Recipe] = []

    def open_last(recipe: Recipe, *rest: object) -> None:
        opened.append(recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "open_run_datasets", open_last)
    with pytest.raises(KeyboardInterrupt):
        training.train(recipe, tmp_path / "run", TrainingCallback())
    made = tmp_path / "run" / "round-1"
    assert opened[0].data.train == (f"folder:{(made / 'labels-1-0').resolve()}?share=2",)
    assert sorted(path.name for path in made.glob("snapshot-*.pt")) == [f"snapshot-{i}.pt" for i in (2, 3, 4)]
    data = open_dataset(f"folder:{made / 'labels-1-0'}")
    assert len(data) == 6
    assert [spec.name for spec in data.classes] == ["background", "tool"]
    assert set(np.unique([data[i].labels for i in range(6)])) <= {0, 1, 255}
    assert (made / "labels-1-0" / "images" / "labels" / "000000.png").is_symlink()
    changed = replace(recipe, supervised=replace(recipe.supervised, rate=1e-3))
    with pytest.raises(UsageError, match=r"round-1/supervised\.pt was made with supervised\.rate 0\.002, now 0\.001"):
        training.train(changed, tmp_path / "run", TrainingCallback())
    more = replace(recipe, weak=replace(recipe.weak, snapshots=4))
    with pytest.raises(UsageError, match=r"round-1/supervised\.pt was made with weak\.snapshots 3, now 4"):
        training.train(more, tmp_path / "run", TrainingCallback())


def test_only_the_first_process_keeps_networks_and_labels(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weak_rounds, "process_rank", lambda: 1)
    stage: Any = SimpleNamespace(name="supervised")
    _Snapshots(ClipSegmenter(recipe.network), tmp_path / "run", [4], TrainingCallback())(stage, 4, {})
    line = weak_rounds.relabel(recipe.data.train[0], [], (), recipe, tmp_path / "run" / "new", TrainingCallback())
    assert line == f"folder:{tmp_path.resolve() / 'run' / 'new'}?share=2"
    assert not (tmp_path / "run").exists()


def test_labels_of_another_round_are_other_training_data(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weak_rounds, "train_round", lambda *rest: ([], open_dataset(recipe.data.train[0][:-8]).classes))
    monkeypatch.setattr(
        weak_rounds, "SnapshotEnsemble", lambda *rest: lambda image: np.zeros(image.shape[:2], np.uint8)
    )
    recipes = [replace(recipe, weak=replace(recipe.weak, rounds=rounds)) for rounds in (2, 3)]
    two, three = (relabelled_recipe(one, tmp_path / "run", TrainingCallback(), CPU) for one in recipes)
    writer = CheckpointWriter(tmp_path, settings=checkpoint_settings(two, "supervised"))
    save_checkpoint(writer.path("supervised"), {"done": 4, "settings": writer.settings})
    with pytest.raises(UsageError, match=r"data\.train .*labels-1-0.*, now .*labels-2-0"):
        replace(writer, settings=checkpoint_settings(three, "supervised")).read("supervised")


def test_a_round_makes_a_stage_after_the_one_before(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervised stage keeps a share of the weights that it starts from: those that the contrastive stage ended with."""
    ended: list[str] = []

    def make(self: Supervised, *rest: object) -> None:
        assert ended == ["contrastive"]
        raise KeyboardInterrupt

    monkeypatch.setattr(Supervised, "__init__", make)
    monkeypatch.setattr(weak_rounds, "run_stage", lambda stage, *rest: ended.append(stage.name))
    with pytest.raises(KeyboardInterrupt):
        weak_rounds.train_round(recipe, tmp_path, TrainingCallback(), CPU)


def test_pixels_on_which_the_networks_disagree_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = SnapshotEnsemble([], (), Recipe())
    ensemble._predictors = [_Constant(1), _Constant(1), _Constant(2)]  # type: ignore[list-item]
    monkeypatch.setattr(weak_rounds, "labels_at_frame", lambda found, *size: found)
    assert ensemble(np.zeros((2, 2, 3), np.uint8)).tolist() == [[0, 1], [1, 255]]


class _Constant:
    """A predictor whose last pixel has the label given."""

    def __init__(self, label: int) -> None:
        self.label = label

    def reset(self) -> None:
        pass

    def segment(self, image: object) -> object:
        return np.array([[0, 1], [1, self.label]], np.uint8)


def test_recipes_without_pseudo_labels_or_room_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    assert snapshot_steps(600, WeakConfig(2, 3, 50)) == [600, 550, 500]
    scenes = replace(recipe, data=replace(recipe.data, train=("rendered:seeds=0-1",)))
    with pytest.raises(UsageError, match="without pseudo-labels"):
        relabelled_recipe(scenes, tmp_path, TrainingCallback(), CPU)
    for weak in (WeakConfig(2, 5, 1), WeakConfig(2, 0, 1)):
        with pytest.raises(UsageError, match=r"weak.snapshots is \d, 1 steps apart"):
            relabelled_recipe(replace(recipe, weak=weak), tmp_path, TrainingCallback(), CPU)
    assert load_recipe("weak").weak == WeakConfig(2, 4, 50)
