"""Classes as text: prompt ensembles and their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec, ensemble

if TYPE_CHECKING:
    from cliprl.models.network.network import ClipSegmenter

# Every phrase of a class is put into every template; the class embedding is the mean.
TEMPLATES = ("{}", "a photo of {}", "an endoscopic view of {}", "{} in a surgical scene")


def class_prompts(spec: ClassSpec) -> list[str]:
    """Return every prompt of a class: its phrases (or its name) in all templates."""
    return ensemble(spec, TEMPLATES)


def class_embeddings(network: ClipSegmenter, classes: Sequence[ClassSpec]) -> Tensor:
    """Return unit text embeddings float32 (K, E): the normalized mean over the prompts of each class."""
    ensembles = [network.encode_text(network.tokenize(class_prompts(spec))).mean(0) for spec in classes]
    return F.normalize(torch.stack(ensembles), dim=-1)


def sampled_embeddings(network: ClipSegmenter, classes: Sequence[ClassSpec], generator: torch.Generator) -> Tensor:
    """Return unit text embeddings (K, E) of one random prompt for each class, so that training covers all wordings."""
    chosen = []
    for spec in classes:
        prompts = class_prompts(spec)
        chosen.append(prompts[int(torch.randint(len(prompts), (), generator=generator))])
    return network.encode_text(network.tokenize(chosen))
