"""Words in captions find their pixels: a loss that needs no mask of what a phrase names.

A phrase of a picture's caption should win over the trained classes somewhere in that picture, and nowhere in pictures whose
captions lack it (multiple-instance learning: the picture is the bag, its cells are the instances).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# What joins the phrases of a caption, and where in the picture a thing is: a place is no part of its name.
_JOINTS = re.compile(r" with | and |, ")
_PLACE = re.compile(r" (in|on) the [a-z ]+$")
_SIZES = re.compile(r"^(a )?(small|large) ")
# The share of a picture's cells that speak for a phrase.
SHARE = 0.01
LOW = -1e4  # below every logit, and a number


def phrases_of(caption: str) -> list[str]:
    """What a caption names, without size and place: "a view of fat with a small hook on the left" -> "fat", "a hook"."""
    head, _, rest = caption.partition(" of ")
    parts = [_PLACE.sub("", part.strip()) for part in _JOINTS.split(rest or head)]
    return list(dict.fromkeys(_SIZES.sub(lambda found: found[1] or "", part) for part in parts if part))


def presence(captions: Sequence[str]) -> tuple[list[str], Tensor]:
    """The P phrases of B captions, sorted, and which caption has which: bool (B, P)."""
    named = [set(phrases_of(caption)) for caption in captions]
    phrases = sorted(set().union(*named))
    return phrases, torch.tensor([[phrase in names for phrase in phrases] for names in named], dtype=torch.bool)


def grounding_loss(classes: Tensor, phrases: Tensor, present: Tensor) -> Tensor:
    """How badly the cells tell which phrase belongs to which picture.

    classes: logits (B, K, h, w) of the trained classes; phrases: logits (B, P, h, w); present: bool (B, P). The SHARE of a
    picture's cells that speak most for a phrase are heard: by their logits, which should tell the phrase's pictures from
    others, and a picture's phrases from others; and by their odds against all classes, which should say yes or no.
    """
    count = max(1, round(SHARE * phrases.shape[2] * phrases.shape[3]))
    odds = phrases - classes.logsumexp(1, keepdim=True)
    said, weighed = (maps.flatten(2).topk(count, dim=2).values.mean(2) for maps in (phrases, odds))
    errors = F.binary_cross_entropy_with_logits(weighed, present.to(weighed.dtype), reduction="none")
    sides = [errors[side].mean() for side in (present, ~present) if side.any()]
    return torch.stack(sides).mean() + _told_apart(said, present) + _told_apart(said.T, present.T)


def _told_apart(scores: Tensor, present: Tensor) -> Tensor:
    """Each true pair (i, j) of `present` (n, m) against the false ones of row i: mean -log of its softmax among them."""
    others = scores.masked_fill(present, LOW).logsumexp(1, keepdim=True).expand_as(scores)
    return F.softplus(others - scores)[present].mean()
