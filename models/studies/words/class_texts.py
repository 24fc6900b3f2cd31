"""Separate the texts of classes before any mask is learned, and keep them so."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cliprl.engines import ClassSpec
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import sampled_embeddings
from cliprl.models.training.stages.gradient_stage import cosine_rate, optimizer_step

_STEPS, _RATE = 100, 1e-3
# Scale of the cosines, and weight of their squares between classes.
_SCALE, _SQUARES = 10.0, 10.0


def separate_texts(network: ClipSegmenter, classes: Sequence[ClassSpec], seed: int) -> ClipSegmenter:
    """Train the text encoder alone until texts of a class are alike and those of two classes are not. Returns the network.

    Without it the embeddings of all instruments have cosines of 0.94 and more, and so have the gradients of their pixels: 20
    steps on 20 frames of one class raise the cosines to 0.999, and the network does not find it even there. It comes before
    the masks: what pixels have learned of texts is lost where these change.
    """
    optimizer = torch.optim.AdamW(_text_parameters(network), lr=_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_rate(step, _STEPS))
    generator, own = torch.Generator().manual_seed(seed), torch.arange(len(classes))
    for _ in range(_STEPS):
        first, second = (sampled_embeddings(network, classes, generator) for _ in range(2))
        cosines = first @ second.T
        others = (cosines * (1 - torch.eye(len(classes)))).square().mean()
        optimizer_step(optimizer, schedule, F.cross_entropy(_SCALE * cosines, own) + _SQUARES * others, network.clip)
    return network


def freeze_texts(network: ClipSegmenter) -> ClipSegmenter:
    """Exclude the text encoder from training: masks of few classes would make the texts alike again. Returns the network."""
    for parameter in _text_parameters(network):
        parameter.requires_grad_(False)
    return network


def _text_parameters(network: ClipSegmenter) -> list[nn.Parameter]:
    return [value for name, value in network.clip.named_parameters() if not name.startswith("visual")]
