"""The supervised stage: what its loss compares with what."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.config.config import NetworkConfig, Recipe, SupervisedConfig
from cliprl.models.data.batch_loader import Mixture
from cliprl.models.data.sample import Sample
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import sampled_embeddings
from cliprl.models.training.losses import partial_cross_entropy
from cliprl.models.training.stages.supervised import Supervised

SIZE = (64, 96)
NETWORK = NetworkConfig(
    weights="", height=64, width=96, embedding=16, pyramid=16, features=8, text_width=32, text_layers=1
)
CLASSES = (
    ClassSpec("tissue", (0, 0, 0), "anatomy", ("tissue",)),
    ClassSpec("rod", (0, 255, 0), "instrument", ("a rod",)),
)
RECIPE = Recipe(network=NETWORK, supervised=SupervisedConfig(batch=4))


class Edges:
    """Pictures in two halves, the boundary at any pixel: within cells of 4 pixels more often than between them."""

    name = "edges"

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Sample:
        image, labels = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
        image[:, 16 + index :], labels[:, 16 + index :] = 255, 1
        return Sample(image, labels, "one")

    def clip(self, index: int) -> str:
        return "one"


def stage_of(stride: int) -> Supervised:
    torch.manual_seed(0)
    recipe = replace(RECIPE, supervised=replace(RECIPE.supervised, stride=stride))
    return Supervised(ClipSegmenter(recipe.network), Mixture([Edges()], [1.0]), CLASSES, recipe)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_loss_compares_every_stride_th_pixel_with_upsampled_logits(stride: int) -> None:
    stage, twin = stage_of(stride), stage_of(stride)
    image, labels = twin.batches(0)
    assert labels.shape == (4, SIZE[0] // stride, SIZE[1] // stride)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        _, logits = twin.network.train()(image, sampled_embeddings(twin.network, CLASSES, generator))
    fine = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    expected = partial_cross_entropy(fine, labels, twin.allowed).mean().item()
    assert stage.step(0)["cross-entropy"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("stride", [0, 3, 8])
def test_a_stride_that_no_grid_has_is_refused(stride: int) -> None:
    with pytest.raises(UsageError, match=rf"supervised\.stride.*{stride}.*1, 2 or 4"):
        stage_of(stride)


def averaging(steps: int, decay: float, start_share: float = 0.0) -> Supervised:
    torch.manual_seed(0)
    supervised = replace(RECIPE.supervised, steps=steps, average=decay, start_share=start_share)
    recipe = replace(RECIPE, supervised=supervised)
    return Supervised(ClipSegmenter(recipe.network), Mixture([Edges()], [1.0]), CLASSES, recipe)


def test_the_stage_ends_with_the_average_of_its_weights() -> None:
    stage, plain = averaging(3, 0.5), averaging(3, 0.0)
    name = next(name for name, weight in plain.network.named_parameters() if weight.requires_grad)
    expected = dict(plain.network.named_parameters())[name].detach().clone()
    for step in range(3):
        plain.step(step)
        stage.step(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * dict(plain.network.named_parameters())[name].detach()
    torch.testing.assert_close(dict(stage.network.named_parameters())[name].detach(), expected)


def test_an_average_is_resumed_from_its_checkpoint() -> None:
    whole, first, second = averaging(2, 0.9), averaging(2, 0.9), averaging(2, 0.9)
    for step in range(2):
        whole.step(step)
    first.step(0)
    second.load(dict(first.state().items()))
    second.step(1)
    for (name, one), other in zip(whole.network.named_parameters(), second.network.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_share_of_the_start_stays_in_the_weights(decay: float) -> None:
    plain, mixed = averaging(2, decay), averaging(2, decay, start_share=0.7)
    start = {name: value.clone() for name, value in plain.network.state_dict().items()}
    for step in range(2):
        plain.step(step)
        mixed.step(step)
    found = mixed.network.state_dict()
    for name, value in plain.network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(found[name], 0.7 * start[name] + 0.3 * value, msg=name)
    for name, value in mixed.state().get("average", {}).items():
        torch.testing.assert_close(value, found[name], msg=name)
