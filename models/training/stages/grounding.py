"""The grounding loss and a supervised stage with it: captions localize phrases that have no masks.

A phrase should win over the trained classes somewhere in an image whose caption has it, and nowhere in images whose captions
lack it (multiple-instance learning: the image is the bag, its cells are the instances).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec
from cliprl.models.config.config import Recipe
from cliprl.models.data.augmentation.augment import Geometry, Photometry
from cliprl.models.data.batch_loader import BatchLoader
from cliprl.models.data.image_mask_dataset import LabelledDataset
from cliprl.models.data.sample import allowed_classes, instrument_classes
from cliprl.models.data.sets.caption_dataset import CaptionDataset
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import TEMPLATES, sampled_embeddings
from cliprl.models.training.losses import dice_loss, partial_cross_entropy
from cliprl.models.training.parallel import autocast
from cliprl.models.training.stages.gradient_stage import GradientStage

# Separators of the phrases of a caption, and places, which are not part of a name.
_JOINTS = re.compile(r" with | and |, ")
_PLACE = re.compile(r" (in|on) the [a-z ]+$")
_SIZES = re.compile(r"^(a )?(small|large) ")
# The share of an image's cells, those with the highest logits, that a phrase is scored by.
UPDATED_SHARE = 0.01
LOW = -1e4  # below every logit, and a number


def phrases_of(caption: str) -> list[str]:
    """List the phrases of a caption without size and place: "a view of fat with a small hook on the left" -> "fat", "a hook"."""
    head, _, rest = caption.partition(" of ")
    parts = [_PLACE.sub("", part.strip()) for part in _JOINTS.split(rest or head)]
    return list(dict.fromkeys(_SIZES.sub(lambda found: found[1] or "", part) for part in parts if part))


def presence(captions: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return the P sorted phrases of B captions, and which caption has which: bool (B, P)."""
    named = [set(phrases_of(caption)) for caption in captions]
    phrases = sorted(set().union(*named))
    return phrases, torch.tensor([[phrase in names for phrase in phrases] for names in named], dtype=torch.bool)


def grounding_loss(classes: Tensor, phrases: Tensor, present: Tensor) -> Tensor:
    """Return the grounding loss.

    classes: logits (B, K, h, w) of the trained classes; phrases: logits (B, P, h, w); present: bool (B, P). The SHARE of an
    image's cells with the highest values count, once by their logits, which should separate the phrase's images from others
    and the image's phrases from others, and once by their odds against all classes, as a binary decision.
    """
    count = max(1, round(UPDATED_SHARE * phrases.shape[2] * phrases.shape[3]))
    odds = phrases - classes.logsumexp(1, keepdim=True)
    scores, weighed = (maps.flatten(2).topk(count, dim=2).values.mean(2) for maps in (phrases, odds))
    errors = F.binary_cross_entropy_with_logits(weighed, present.to(weighed.dtype), reduction="none")
    sides = [errors[side].mean() for side in (present, ~present) if side.any()]
    return torch.stack(sides).mean() + _contrast(scores, present) + _contrast(scores.T, present.T)


def _contrast(scores: Tensor, present: Tensor) -> Tensor:
    """Return the mean -log softmax of each true pair (i, j) of `present` (n, m) among the false pairs of row i."""
    others = scores.masked_fill(present, LOW).logsumexp(1, keepdim=True).expand_as(scores)
    return F.softplus(others - scores)[present].mean()


@dataclass(frozen=True, slots=True)
class CaptionedLabels:
    """Images with captions, and their labels in the trained classes; both have the same indices."""

    captions: CaptionDataset
    labels: LabelledDataset


class Grounded(GradientStage):
    """The supervised stage with the grounding loss, weighted by `weight`, beside cross-entropy and Dice."""

    name = "grounded"

    def __init__(self, network: ClipSegmenter, data: CaptionedLabels, recipe: Recipe, weight: float) -> None:
        self.network, self.data, self.config, self.weight = network, data, recipe.supervised, weight
        self.seed, self.precision = recipe.seed, recipe.precision
        self.classes: tuple[ClassSpec, ...] = data.labels.classes
        self.size = (recipe.network.height, recipe.network.width)
        self.allowed = torch.from_numpy(allowed_classes(self.classes))
        self.instrument = torch.from_numpy(instrument_classes(self.classes))
        super().__init__(
            "network", network, torch.optim.AdamW(_groups(network, recipe), weight_decay=1e-2), self.config.steps
        )
        self.batches = BatchLoader(self._batch, recipe.data.workers)

    def _batch(self, step: int) -> tuple[Tensor, Tensor, list[str]]:
        """Return images uint8 (B, H, W, 3), label codes int64 (B, H/4, W/4) and captions; views keep captions true."""
        images, labels, captions = [], [], []
        for n in range(self.config.batch):
            rng = np.random.default_rng((self.seed, step, n))
            index = int(rng.integers(len(self.data.labels)))
            sample = self.data.labels[index]
            seen = Geometry.whole(rng, sample.labels.shape, self.size).apply(sample, self.size)
            image, codes = Photometry.draw(rng).apply(*seen, rng)
            images.append(image)
            labels.append(codes)
            captions.append(self.data.captions.caption(index))
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long(), captions

    def step(self, index: int) -> Mapping[str, float]:
        """Train one batch."""
        self.network.train()
        image, labels, captions = self.batches(index)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        phrases, present = presence(captions)
        templates = torch.randint(len(TEMPLATES), (len(phrases),), generator=generator)
        prompts = [TEMPLATES[t].format(phrase) for t, phrase in zip(templates.tolist(), phrases, strict=True)]
        with autocast(self.precision, image.device):
            texts = self.network.encode_text(self.network.tokenize(prompts))
            known = sampled_embeddings(self.network, self.classes, generator)
            _, logits = self.network(image, torch.cat([known, texts]))
        classes, words = logits.float().split([len(known), len(texts)], 1)
        losses = {
            "cross-entropy": partial_cross_entropy(classes, labels, self.allowed).mean(),
            "dice": self.config.dice * dice_loss(classes, labels, self.instrument, self.allowed),
            "grounding": self.weight * grounding_loss(classes, words, present),
        }
        self.update(torch.stack(list(losses.values())).sum())
        return {name: loss.item() for name, loss in losses.items()}


def _groups(network: ClipSegmenter, recipe: Recipe) -> list[dict[str, Any]]:
    slow = [p for p in network.pretrained_parameters() if p.requires_grad]
    known = {id(p) for p in slow}
    rest = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
    return [{"params": slow, "lr": recipe.supervised.tower_rate}, {"params": rest, "lr": recipe.supervised.rate}]
