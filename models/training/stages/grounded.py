"""A dense stage that learns from masks and from captions at once: classes by their labels, all other words by where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliprl.engines import ClassSpec
from cliprl.models.config.config import Recipe
from cliprl.models.data.augmentation.augment import Geometry, Photometry
from cliprl.models.data.batch_loader import Ahead
from cliprl.models.data.image_mask_dataset import Labelled
from cliprl.models.data.sample import allowed_classes, instrument_classes
from cliprl.models.data.sets.caption_dataset import CaptionDataset
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import TEMPLATES, drawn_embeddings, tokenize
from cliprl.models.training.losses import dice_loss, partial_cross_entropy
from cliprl.models.training.parallel import autocast
from cliprl.models.training.stages.grounding import grounding_loss, presence
from cliprl.models.training.stages.supervised import cosine_rate, update


@dataclass(frozen=True, slots=True)
class Told:
    """Pictures with captions, and their labels in the classes that are trained; one index means one picture in both."""

    captions: CaptionDataset
    labels: Labelled


class Grounded:
    """The supervised stage with the grounding loss, weighted by `weight`, beside cross-entropy and Dice."""

    name = "grounded"

    def __init__(self, network: ClipSegmenter, told: Told, recipe: Recipe, weight: float) -> None:
        self.network, self.told, self.config, self.weight = network, told, recipe.supervised, weight
        self.seed, self.steps, self.precision = recipe.seed, recipe.supervised.steps, recipe.precision
        self.classes: tuple[ClassSpec, ...] = told.labels.classes
        self.size = (recipe.network.height, recipe.network.width)
        self.allowed = torch.from_numpy(allowed_classes(self.classes))
        self.instrument = torch.from_numpy(instrument_classes(self.classes))
        self.optimizer = torch.optim.AdamW(_groups(network, recipe), weight_decay=1e-2)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: cosine_rate(s, self.steps))
        self.batches = Ahead(self._batch, recipe.data.workers)

    def _batch(self, step: int) -> tuple[Tensor, Tensor, list[str]]:
        """Images uint8 (B, H, W, 3), label codes int64 (B, H/4, W/4), captions; views keep what a caption tells."""
        images, labels, captions = [], [], []
        for n in range(self.config.batch):
            rng = np.random.default_rng((self.seed, step, n))
            index = int(rng.integers(len(self.told.labels)))
            sample = self.told.labels[index]
            seen = Geometry.whole(rng, sample.labels.shape, self.size).apply(sample, self.size)
            image, codes = Photometry.draw(rng).apply(*seen, rng)
            images.append(image)
            labels.append(codes)
            captions.append(self.told.captions.caption(index))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long(), captions

    def step(self, index: int) -> Mapping[str, float]:
        """One batch."""
        self.network.train()
        image, labels, captions = self.batches(index)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        phrases, present = presence(captions)
        templates = torch.randint(len(TEMPLATES), (len(phrases),), generator=generator)
        said = [TEMPLATES[t].format(phrase) for t, phrase in zip(templates.tolist(), phrases, strict=True)]
        with autocast(self.precision, image.device):
            texts = self.network.encode_text(tokenize(said, self.network.context))
            known = drawn_embeddings(self.network, self.classes, generator)
            _, logits = self.network(image, torch.cat([known, texts]))
        classes, words = logits.float().split([len(known), len(texts)], 1)
        losses = {
            "cross-entropy": partial_cross_entropy(classes, labels, self.allowed).mean(),
            "dice": self.config.dice * dice_loss(classes, labels, self.instrument, self.allowed),
            "grounding": self.weight * grounding_loss(classes, words, present),
        }
        update(self.optimizer, self.scheduler, torch.stack(list(losses.values())).sum(), self.network)
        return {name: loss.item() for name, loss in losses.items()}

    def state(self) -> dict[str, Any]:
        """Network, optimiser and schedule."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])


def _groups(network: ClipSegmenter, recipe: Recipe) -> list[dict[str, Any]]:
    slow = [p for p in network.pretrained_parameters() if p.requires_grad]
    known = {id(p) for p in slow}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    return [{"params": slow, "lr": recipe.supervised.tower_rate}, {"params": rest, "lr": recipe.supervised.rate}]
