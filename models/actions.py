"""What the refiner's agents can do: fourteen actions on a pixel's class distribution, none of which knows a class by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

KEEP = 0
# (rows, columns) to the neighbour whose logits are taken: a boundary moves by one or five cells a step.
NEIGHBOURS = ((0, 1), (0, -1), (1, 0), (-1, 0), (0, 5), (0, -5), (5, 0), (-5, 0))
SMOOTH, PRIOR, RESET, SHARPEN, SWAP = 9, 10, 11, 12, 13
COUNT = 14
# What SHARPEN adds to the leading class, in logits. SWAP exchanges the leading class and the runner-up.
PUSH = 1.5
# Mean over this many cells squared.
WINDOW = 5
LOW = -1e4  # below every logit, and within FP16

# Where an action reads: the row and column step, and which of the stacked pictures (`Pictures`).
_STEPS = [(0, 0), *NEIGHBOURS, (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]
_PICTURES = [0] * 9 + [1, 2, 3, 0, 0]


class Pictures(NamedTuple):
    """What a step may read, each (B, K, h, w): z_t, its mean over 5x5 cells (fewer at the edge), the prior and z_0."""

    logits: Tensor
    smooth: Tensor
    prior: Tensor
    base: Tensor

    @classmethod
    def of(cls, logits: Tensor, base: Tensor, prior: Tensor) -> Pictures:
        """The pictures of one step."""
        smooth = F.avg_pool2d(logits, WINDOW, 1, WINDOW // 2, count_include_pad=False)
        return cls(logits, smooth, prior, base)


def leaders(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Masks (B, K, h, w) of the leading class and of the runner-up, 1.0 where a class is it."""
    first = (logits == logits.amax(1, keepdim=True)).to(logits.dtype)
    rest = logits + first * LOW
    return first, (rest == rest.amax(1, keepdim=True)).to(logits.dtype)


def apply_actions(actions: Tensor, pictures: Pictures) -> Tensor:
    """Let every cell act: actions int64 (B, h, w) in 0..COUNT-1. Returns z_{t+1} (B, K, h, w)."""
    logits = pictures.logits
    batch, classes, height, width = logits.shape
    stacked = torch.cat([p.flatten(2) for p in pictures], 2)
    index = _sources(actions, height, width).flatten(1)[:, None].expand(batch, classes, height * width)
    taken = torch.gather(stacked, 2, index).view(batch, classes, height, width)
    first, second = leaders(logits)
    sharpen = (actions == SHARPEN).to(logits.dtype)[:, None]
    swap = (actions == SWAP).to(logits.dtype)[:, None]
    lead = (logits * (first - second)).sum(1, keepdim=True)
    return taken + PUSH * sharpen * first + swap * lead * (second - first)


def outcomes(pictures: Pictures) -> Iterator[Tensor]:
    """What every action in turn, taken by all cells at once, would make of z_t: COUNT tensors (B, K, h, w)."""
    logits, (height, width) = pictures.logits, pictures.logits.shape[2:]
    first, second = leaders(logits)
    yield logits
    margin = max(abs(step) for neighbour in NEIGHBOURS for step in neighbour)
    wide = F.pad(logits, (margin,) * 4, mode="replicate")
    for down, right in NEIGHBOURS:
        yield wide[..., margin + down : margin + down + height, margin + right : margin + right + width]
    yield from (pictures.smooth, pictures.prior, pictures.base)
    yield logits + PUSH * first
    yield logits + (logits * (first - second)).sum(1, keepdim=True) * (second - first)


def _sources(actions: Tensor, height: int, width: int) -> Tensor:
    """For each cell the flat index, int64 (B, h, w), of the stacked pictures' cell that its action reads."""
    steps = torch.tensor(_STEPS, device=actions.device)
    pictures = torch.tensor(_PICTURES, device=actions.device)
    rows = torch.arange(height, device=actions.device)[:, None] + steps[:, 0][actions]
    columns = torch.arange(width, device=actions.device) + steps[:, 1][actions]
    inside = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return pictures[actions] * (height * width) + inside
