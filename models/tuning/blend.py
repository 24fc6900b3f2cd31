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

# Shares of the training that are tried in order, and the points of IoU on old views that the first one taken may lose.
SHARES, MAX_VIEW_LOSS = (1.0, 0.8, 0.6, 0.4, 0.2), 0.5


@torch.no_grad()
def blend_weights(
    encoder: TrainableEncoder,
    start: Sequence[Tensor],
    views: EncodedViews,
    classes: Sequence[ClassSpec],
    precision: str,
) -> float:
    """Blend the encoder's weights with `start`, judged by `views` of old data that were not trained. Returns the share taken.

    Without any instrument in `views` all of the training is kept.
    """
    trained = [weight.detach().clone() for weight in encoder.weights]
    _set_weights(encoder, start, trained, 0.0)
    before = instrument_iou(encoder, views, classes, precision)
    for share in SHARES:
        _set_weights(encoder, start, trained, share)
        after = instrument_iou(encoder, views, classes, precision)
        if before is None or after is None or 100 * (before - after) <= MAX_VIEW_LOSS:
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
