"""The training stage of tuning: cross-entropy and Dice on all views, and distillation on those of old data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cliprl.engines import ClassSpec
from cliprl.models.config.tune_config import TuneConfig
from cliprl.models.data.sample import allowed_classes, instrument_classes
from cliprl.models.training.losses import dice_loss
from cliprl.models.training.parallel import autocast, device_of
from cliprl.models.training.stages.gradient_stage import GradientStage
from cliprl.models.tuning.trainable_encoder import TrainableEncoder
from cliprl.models.tuning.views import EncodedViews, as_images


def likeliest_cross_entropy(logits: Tensor, labels: Tensor, allowed: Tensor) -> Tensor:
    """Return per cell the cross-entropy (B, h, w) with the likeliest class that a label code allows; 0 where all are allowed.

    A cell is called what its likeliest class is. Several allowed classes that are likelier together than the others are not
    enough for a mask. Shapes as in `partial_cross_entropy`.
    """
    sets = allowed[labels].permute(0, 3, 1, 2)
    target = logits.detach().masked_fill(~sets, -torch.inf).argmax(1)
    found = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    return found * ~sets.all(1)


class TuningStage(GradientStage):
    """Trains an encoder on encoded views: the first `new` of them of new data, the rest of old data."""

    name = "tune"

    def __init__(
        self, encoder: TrainableEncoder, views: EncodedViews, new: int, classes: Sequence[ClassSpec], config: TuneConfig
    ) -> None:
        optimizer = torch.optim.AdamW(encoder.groups(config.rate, config.backbone_rate), weight_decay=0.0)
        super().__init__("encoder", encoder, optimizer, config.steps)
        self.encoder, self.views, self.new, self.config = encoder, views, new, config
        self.allowed = torch.from_numpy(allowed_classes(classes))
        self.instrument = torch.from_numpy(instrument_classes(classes))

    def step(self, index: int) -> Mapping[str, float]:
        """Train one batch. Raises NotFiniteError, with unchanged weights, if the loss or its gradient is not finite."""
        config, views = self.config, self.views
        chosen, old = self._draw(index)
        labels = views.labels[chosen].long()
        with autocast(config.precision, device_of(self.encoder)):
            logits = self.encoder({name: as_images(maps[chosen]) for name, maps in views.boundary.items()})
        logits, before = logits.float(), views.logits[chosen].float()
        cross_entropy = likeliest_cross_entropy(logits, labels, self.allowed).mean()
        dice = dice_loss(logits, labels, self.instrument, self.allowed)
        # Where the bundle contradicts a label, it is no teacher.
        right = self.allowed[labels].gather(3, before.argmax(1)[..., None])[..., 0] & old[:, None, None]
        divergence = (before.softmax(1) * (before.log_softmax(1) - logits.log_softmax(1))).sum(1)
        distillation = (divergence * right).mean()
        self.update(cross_entropy + config.dice * dice + config.distillation * distillation)
        return {"cross-entropy": cross_entropy.item(), "dice": dice.item(), "distillation": distillation.item()}

    def _draw(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the numbers of the views of a batch, and which of them are old: (B,) each."""
        rng = np.random.default_rng((self.config.seed, index))
        size = self.encoder.batch
        few = round(self.config.share * size) if len(self.views) > self.new else size
        new = rng.integers(0, self.new, few)
        old = rng.integers(self.new, max(len(self.views), self.new + 1), size - few)
        return torch.from_numpy(np.concatenate([new, old])), torch.arange(size) >= few
