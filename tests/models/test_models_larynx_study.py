"""The leave-one-sequence-out study: one fold of it, on made-up frames and a network small enough for a test."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from stand_in import stand_in
from tiny import NETWORK

from cliprl.engines.cli.cli_runner import run_app
from cliprl.models.config.config import CurriculumConfig, CurriculumRange, Recipe
from cliprl.models.config.load import load_recipe
from cliprl.models.data.batch_loader import Mixture, labelled_batch
from cliprl.models.data.sets.vocalfolds import VocalFolds
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.unet import UNet, UNetStage
from cliprl.models.studies import larynx_study
from cliprl.models.training.stages.supervised import Supervised

TINY = (
    """
name = "tiny"
save_every = 1
"""
    + NETWORK
    + """[contrastive]
steps = 0
[supervised]
steps = 2
batch = 2
[reinforcement]
steps = 1
batch = 2
[curriculum.reinforcement]
unroll = [1, 1]
"""
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two frames of each sequence, every class a stripe."""
    folder, rng = tmp_path_factory.mktemp("larynx"), np.random.default_rng(0)
    mask = np.repeat(np.arange(7, dtype=np.uint8), 10)[None].repeat(70, 0)
    for number in (5, 6, 7, 8):
        for part in ("images", "masks"):
            (folder / part / f"seq{number}").mkdir(parents=True)
        for name in ("1", "2"):
            cv2.imwrite(str(folder / f"images/seq{number}/{name}.jpg"), rng.integers(0, 255, (70, 70, 3), np.uint8))
            cv2.imwrite(str(folder / f"masks/seq{number}/{name}.png"), mask)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY)
    return path, load_recipe(path)


@pytest.mark.slow
def test_a_fold_trains_both_networks_and_writes_the_table(
    frames: Path, recipe: tuple[Path, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The study reads the bundle's scores alone; its networks are exported in the tests of training.
    monkeypatch.setattr("cliprl.models.training.training.export_bundle", stand_in)
    splits = larynx_study.SPLITS["vocalfolds"]
    monkeypatch.setattr(larynx_study, "SPLITS", {"vocalfolds": {"without-seq7": splits["without-seq7"]}})
    monkeypatch.setattr(
        sys, "argv", ["study", str(frames), "--out", str(tmp_path), "--recipe", str(recipe[0]), "--quiet"]
    )
    assert run_app(larynx_study.app, "study") == 0
    result = json.loads((tmp_path / "study.json").read_text())
    assert result["sequences"].keys() == {"seq7"}
    assert all(0 <= result["sequences"]["seq7"][name] <= 1 for name in ("U-Net", "base", "refined"))
    table = (tmp_path / "study.md").read_text()
    assert "| left out | U-Net | base | refined |" in table
    assert "| seq7 |" in table
    assert (tmp_path / "without-seq7" / "unet.pt").is_file()


def test_u_net_starts_from_backbone_weights_and_keeps_frozen_stages(recipe: tuple[Path, Recipe]) -> None:
    torch.manual_seed(0)
    network = ClipSegmenter(recipe[1].network)
    unet = UNet(network, recipe[1], 7).train()
    tower = dict(network.tower.named_parameters())
    for name, parameter in unet.encoder.named_parameters():
        assert torch.equal(parameter, tower[name]), name
        assert parameter.requires_grad == tower[name].requires_grad, name
    assert not unet.encoder.training
    assert unet(torch.zeros(1, 64, 96, 3, dtype=torch.uint8))[1].shape == (1, 7, 64, 96)


def test_the_recipe_takes_fewer_multiply_adds_than_the_u_net() -> None:
    counts = larynx_study.multiply_adds(load_recipe("larynx", ["network.height=64", "network.width=96"]))
    assert 0 < counts["base"] < counts["U-Net"]


def test_both_networks_see_the_same_pictures(frames: Path) -> None:
    """Labels at full resolution, sampled at the cells of the coarse ones, are the coarse ones, but for cells on an edge."""
    mixture = Mixture([VocalFolds(frames)], [1.0])
    (image, coarse), (same, fine) = (labelled_batch(mixture, 3, (64, 96), 0, 0, stride=stride) for stride in (4, 1))
    assert torch.equal(image, same)
    assert fine.shape == (3, 64, 96)
    corners = torch.stack([fine[:, y::4, x::4] for y in (1, 2) for x in (1, 2)])
    assert ((corners == coarse).any(0)).float().mean() > 0.98


def test_both_networks_see_the_images_of_the_curriculum(frames: Path, recipe: tuple[Path, Recipe]) -> None:
    harder = CurriculumRange(severity=(4.0, 5.0), zoom=(0.6, 0.6))
    chosen = replace(recipe[1], curriculum=CurriculumConfig(supervised=harder))
    data = VocalFolds(frames)
    mixture, network = Mixture([data], [1.0]), ClipSegmenter(chosen.network)
    stages = (
        Supervised(network, mixture, data.classes, chosen),
        UNetStage(UNet(network, chosen, len(data.classes)), mixture, data.classes, chosen),
    )
    of_base, of_unet = (stage.batches(1)[0] for stage in stages)
    assert torch.equal(of_base, of_unet)
