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

    A gain on one data set does not make up for a loss on another, nor does one of instruments for one of their classes.
    """
    trained = [weight.detach().clone() for weight in encoder.weights]
    _set_weights(encoder, start, trained, 0.0)
    before = [view_scores(encoder, one, classes, precision) for one in views]
    for share in SHARES:
        _set_weights(encoder, start, trained, share)
        after = [view_scores(encoder, one, classes, precision) for one in views]
        pairs = [pair for sides in zip(before, after, strict=True) for pair in zip(*sides, strict=True)]
        if all(old is None or new is None or 100 * (old - new) <= MAX_VIEW_LOSS for old, new in pairs):
            break
    return share


def view_scores(
    encoder: TrainableEncoder, views: EncodedViews, classes: Sequence[ClassSpec], precision: str
) -> tuple[float | None, float | None]:
    """Return the IoU of all instruments, and the mean IoU of the labelled classes but background, over encoded views.

    None without any. By scores of this kind a tuned bundle is refused; here a class counts where the truth shows it.
    """
    allowed, count = torch.from_numpy(allowed_classes(classes)), len(classes)
    instrument = torch.from_numpy(instrument_classes(classes))
    foreground = torch.tensor([spec.kind != "background" for spec in classes])
    overlap = union = 0
    confusion = torch.zeros(count * count, dtype=torch.long)
    for start in range(0, len(views), encoder.batch):
        part = slice(start, start + encoder.batch)
        with autocast(precision, instrument.device):
            logits = encoder({name: as_images(maps[part]) for name, maps in views.boundary.items()})
        likeliest, labels = logits.argmax(1), views.labels[part].long()
        found, sets = instrument[likeliest], allowed[labels]
        possible, other = (sets & instrument).any(-1), (sets & ~instrument).any(-1)
        truth, known = possible & ~other, ~(possible & other)
        overlap += int((found & truth).sum())
        union += int(((found & known) | truth).sum())
        exact = labels < count
        confusion += (labels[exact] * count + likeliest[exact]).bincount(minlength=count * count)
    return overlap / union if union else None, _mean_iou(confusion.reshape(count, count), foreground)


def _mean_iou(confusion: Tensor, chosen: Tensor) -> float | None:
    """Return the mean IoU of the `chosen` classes that occur in the truth, the rows of `confusion` (K, K); None without any."""
    right, truth = confusion.diagonal(), confusion.sum(1)
    ious = right / (truth + confusion.sum(0) - right).clamp(min=1)
    seen = chosen & (truth > 0)
    return float(ious[seen].mean()) if seen.any() else None


def _set_weights(encoder: TrainableEncoder, start: Sequence[Tensor], trained: Sequence[Tensor], share: float) -> None:
    for weight, old, new in zip(encoder.weights, start, trained, strict=True):
        weight.copy_(torch.lerp(old, new, share))
