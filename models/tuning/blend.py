"""Blend trained weights with those before training: as much of the training as old data can bear.

A mean of both weights keeps most of what was learned and forgets far less (WiSE-FT, Wortsman et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cliprl.engines import ClassSpec
from cliprl.models.data.sample import allowed_classes, instrument_classes
from cliprl.models.training.parallel import autocast
from cliprl.models.tuning.trainable_encoder import TrainableEncoder
from cliprl.models.tuning.views import EncodedViews, as_images

# Shares of the training that are tried in order, and the points of IoU that the first one taken may lose on any old data.
SHARES, MAX_VIEW_LOSS = (1.0, 0.8, 0.6, 0.4, 0.2), 0.5


@torch.no_grad()
def blend_weights(
    encoder: TrainableEncoder,
    start: Sequence[Tensor],
    views: Sequence[EncodedViews],
    classes: Sequence[ClassSpec],
    precision: str,
) -> float:
    """Blend the encoder's weights with `start`, judged by untrained `views` of each old data set. Returns the share taken.

    A gain on one data set does not make up for a loss on another. Views without any instrument are no judges.
    """
    trained = [weight.detach().clone() for weight in encoder.weights]
    _set_weights(encoder, start, trained, 0.0)
    before = [instrument_iou(encoder, one, classes, precision) for one in views]
    for share in SHARES:
        _set_weights(encoder, start, trained, share)
        after = [instrument_iou(encoder, one, classes, precision) for one in views]
        if all(
            old is None or new is None or 100 * (old - new) <= MAX_VIEW_LOSS
            for old, new in zip(before, after, strict=True)
        ):
            break
    return share


def instrument_iou(
    encoder: TrainableEncoder, views: EncodedViews, classes: Sequence[ClassSpec], precision: str
) -> float | None:
    """Return the IoU of all instruments, pooled over encoded views; None without any."""
    allowed = torch.from_numpy(allowed_classes(classes))
    instrument = torch.from_numpy(instrument_classes(classes))
    overlap = union = 0
    for start in range(0, len(views), encoder.batch):
        part = slice(start, start + encoder.batch)
        with autocast(precision, instrument.device):
            logits = encoder({name: as_images(maps[part]) for name, maps in views.boundary.items()})
        found, sets = instrument[logits.argmax(1)], allowed[views.labels[part].long()]
        possible, other = (sets & instrument).any(-1), (sets & ~instrument).any(-1)
        truth, known = possible & ~other, ~(possible & other)
        overlap += int((found & truth).sum())
        union += int(((found & known) | truth).sum())
    return overlap / union if union else None


def _set_weights(encoder: TrainableEncoder, start: Sequence[Tensor], trained: Sequence[Tensor], share: float) -> None:
    for weight, old, new in zip(encoder.weights, start, trained, strict=True):
        weight.copy_(torch.lerp(old, new, share))
