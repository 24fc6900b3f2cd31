"""The supervised stage: the class of every cell, by cross-entropy and Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliprl.engines import ClassSpec, UsageError
from cliprl.models.config.config import Recipe
from cliprl.models.data.batch_loader import BatchLoader, Mixture, labelled_batch
from cliprl.models.data.sample import Image, allowed_classes, instrument_classes
from cliprl.models.evaluation.evaluation import ScoredFrame, draw_comparison
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import sampled_embeddings
from cliprl.models.training.curriculum import Curriculum
from cliprl.models.training.losses import dice_loss, partial_cross_entropy
from cliprl.models.training.parallel import autocast, device_of
from cliprl.models.training.stages.gradient_stage import GradientStage, seed_step


class WeightAverage:
    """Averages the trained weights over about the last 1 / (1 - `decay`) steps; over all steps while these are fewer."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self._decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self._trained.items():
            self.weights[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def copy_to_network(self) -> None:
        """Replace the network's weights by their average."""
        for name, weight in self._trained.items():
            weight.copy_(self.weights[name])

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore `weights`. Raises KeyError if one is missing."""
        for name, average in self.weights.items():
            average.copy_(weights[name])


# Images in a preview.
PREVIEW_IMAGES = 4
# Label strides: that of the network's grid, or finer.
LABEL_STRIDES = (1, 2, 4)


class Supervised(GradientStage):
    """Trains image backbone, decoder and text encoder; the pretrained backbone at a lower rate."""

    name = "supervised"

    def __init__(self, network: ClipSegmenter, mixture: Mixture, classes: Sequence[ClassSpec], recipe: Recipe) -> None:
        config = recipe.supervised
        if config.stride not in LABEL_STRIDES:
            raise UsageError(f"setting 'supervised.stride' is {config.stride}: it must be 1, 2 or 4")
        self.network, self.classes, self.config, self.seed = network, classes, config, recipe.seed
        self.device, self.precision = device_of(network), recipe.precision
        self.allowed = torch.from_numpy(allowed_classes(classes)).to(self.device)
        self.instrument = torch.from_numpy(instrument_classes(classes)).to(self.device)
        super().__init__(
            "network",
            network,
            torch.optim.AdamW(_groups(network, config.rate, config.tower_rate), weight_decay=1e-2),
            config.steps,
        )
        self.batches = supervised_batches(mixture, recipe, config.stride)
        self._average = WeightAverage(network, config.average) if config.average else None
        self._start = deepcopy(network.state_dict()) if config.start_share else {}
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def step(self, index: int) -> Mapping[str, float]:
        """Train one batch."""
        seed_step(self.seed, index)
        self.network.train()
        image, labels = (part.to(self.device, non_blocking=True) for part in self.batches(index))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        with autocast(self.precision, self.device):
            _, logits = self.network(image, sampled_embeddings(self.network, self.classes, generator))
        logits = F.interpolate(logits.float(), labels.shape[1:], mode="bilinear", align_corners=False)
        self._last = image, labels, logits.detach()
        cross_entropy = partial_cross_entropy(logits, labels, self.allowed).mean()
        dice = dice_loss(logits, labels, self.instrument, self.allowed)
        self.update(cross_entropy + self.config.dice * dice)
        if self._average:
            self._average.update(index)
        if index + 1 == self.steps:
            self._finish()
        return {"cross-entropy": cross_entropy.item(), "dice": dice.item()}

    @torch.no_grad()
    def _finish(self) -> None:
        """End with the average of the weights, and with the share of those before the stage that stays."""
        if self._average:
            self._average.copy_to_network()
        weights = self.network.state_dict()
        for name, value in self._start.items():
            if value.is_floating_point():
                weights[name].lerp_(value, self.config.start_share)
        if self._average:
            self._average.load(weights)

    def preview(self) -> Image | None:
        """Return images of the last step, each beside its truth and its prediction: uint8 (n H, 3 W, 3) RGB."""
        if self._last is None:
            return None
        images, labels, logits = (part[:PREVIEW_IMAGES].cpu().numpy() for part in self._last)
        found = logits.argmax(1).astype(np.uint8)
        colors = [spec.color for spec in self.classes]
        rows = zip(
            images, *(_widened(part, self.config.stride) for part in (labels.astype(np.uint8), found)), strict=True
        )
        return np.vstack([draw_comparison(ScoredFrame(0.0, 0, "", *row), colors) for row in rows])

    def state(self) -> dict[str, Any]:
        """Return network, optimizer, schedule, and the average of the weights if there is one."""
        return super().state() | ({"average": self._average.weights} if self._average else {})

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        super().load(state)
        if self._average:
            self._average.load(state["average"])


def supervised_batches(mixture: Mixture, recipe: Recipe, stride: int) -> BatchLoader[tuple[Tensor, Tensor]]:
    """Return what gives the batch of a step, as `labelled_batch`. Its images do not depend on the `stride` of the labels."""
    size = (recipe.network.height, recipe.network.width)
    growth = Curriculum(recipe.curriculum.supervised, recipe.supervised.steps)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        severity, zoom = growth.severity(step), growth.zoom(step)
        return labelled_batch(
            mixture, recipe.supervised.batch, size, recipe.seed, step, severity=severity, zoom=zoom, stride=stride
        )

    return BatchLoader(batch, recipe.data.workers)


def _widened(labels: Image, stride: int) -> Image:
    """Repeat labels (B, h, w) to the size of the images, (B, H, W)."""
    return labels.repeat(stride, 1).repeat(stride, 2)


def _groups(network: ClipSegmenter, rate: float, tower_rate: float) -> list[dict[str, Any]]:
    backbone = [p for p in network.pretrained_parameters() if p.requires_grad]
    slow = {id(p) for p in backbone}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in slow]
    return [{"params": backbone, "lr": tower_rate}, {"params": rest, "lr": rate}]
