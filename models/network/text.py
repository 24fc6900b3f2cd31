"""Classes as text: tokens, prompt ensembles and their embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec, ensemble

if TYPE_CHECKING:
    from cliprl.models.network.network import ClipSegmenter

# Every phrase of a class is put into every template; the class embedding is the mean.
TEMPLATES = ("{}", "a photo of {}", "an endoscopic view of {}", "{} in a surgical scene")


@lru_cache(maxsize=4)
def _tokenizer(context: int) -> Any:
    return open_clip.SimpleTokenizer(context_length=context)


def tokenize(texts: Sequence[str], context: int) -> Tensor:
    """Return byte-pair tokens int64 (n, context) of open_clip's tokenizer; longer texts are truncated."""
    tokens: Tensor = _tokenizer(context)(list(texts))
    return tokens


def class_prompts(spec: ClassSpec) -> list[str]:
    """Return every prompt of a class: its phrases (or its name) in all templates."""
    return ensemble(spec, TEMPLATES)


def class_embeddings(network: ClipSegmenter, classes: Sequence[ClassSpec]) -> Tensor:
    """Return unit text embeddings float32 (K, E): the normalized mean over the prompts of each class."""
    ensembles = [network.encode_text(tokenize(class_prompts(spec), network.context)).mean(0) for spec in classes]
    return F.normalize(torch.stack(ensembles), dim=-1)


def sampled_embeddings(network: ClipSegmenter, classes: Sequence[ClassSpec], generator: torch.Generator) -> Tensor:
    """Return unit text embeddings (K, E) of one random prompt for each class, so that training covers all wordings."""
    chosen = []
    for spec in classes:
        prompts = class_prompts(spec)
        chosen.append(prompts[int(torch.randint(len(prompts), (), generator=generator))])
    return network.encode_text(tokenize(chosen, network.context))
