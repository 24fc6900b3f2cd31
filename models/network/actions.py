"""Actions of the refiner's agents on a cell's logits: copy neighbors, copy the prior, or move in the text embedding space.

Actions do not depend on the names or the number of classes. To raise a class, an action moves the cell towards a *concept*, a
direction in the text embedding space, and changes each class's logit by the similarity of its text. A class that a prompt adds
at run time therefore moves like classes of similar meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

KEEP = 0
# (rows, columns) to the neighbor whose logits are taken: a boundary moves by one or three cells a step.
NEIGHBORS = ((0, 1), (0, -1), (1, 0), (-1, 0), (0, 3), (0, -3), (3, 0), (-3, 0))
SMOOTH, PRIOR, BLEND, RESET, SHARPEN = 9, 10, 11, 12, 13
# Actions from here on move towards concept 0, 1, ...
CONCEPTS = 14
# Logits that SHARPEN adds to the leading class.
SHARPER = 1.5
# Ridge of the dual basis; it keeps concepts short.
RIDGE = 1e-2
# Mean over this many cells squared.
ACTION_WINDOW = 5

_BOUNDED = 5
# The source of each action: row and column step, and index of the stacked maps (`ActionContext`). The last is any concept's.
_STEPS = [(0, 0), *NEIGHBORS, (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]
_IMAGES = [0] * 9 + [1, 2, 3, 4, 0, _BOUNDED]


class ActionContext(NamedTuple):
    """The maps that a step reads, each (B, K, h, w): z_t, its mean over 5x5 cells (fewer at the edge), the prior, the mean of
    z_t and the prior, z_0, and the start of concept actions: z_t with every class raised to a bound below the leading one.
    Without the bound, overconfident logits in the dark are wrong by 10 and more."""

    logits: Tensor
    smooth: Tensor
    prior: Tensor
    blend: Tensor
    base: Tensor
    bounded: Tensor

    @classmethod
    def of(cls, logits: Tensor, base: Tensor, prior: Tensor, bound: float) -> ActionContext:
        """Compute the maps of one step; `bound` in logits."""
        smooth = F.avg_pool2d(logits, ACTION_WINDOW, 1, ACTION_WINDOW // 2, count_include_pad=False)
        bounded = torch.maximum(logits, logits.amax(1, keepdim=True) - bound)
        return cls(logits, smooth, prior, (logits + prior) / 2, base, bounded)


def concept_directions(text: Tensor) -> Tensor:
    """Return the concepts of class embeddings `text` (K, E): their dual basis (K, E) with a ridge for similar texts.

    The inner product of a concept is 1 with its class's embedding and about 0 with the others.
    """
    dual: Tensor = torch.linalg.solve(text @ text.T + RIDGE * torch.eye(len(text)).to(text), text)
    own: Tensor = (text * dual).sum(1, keepdim=True)
    concepts: Tensor = dual / own
    return concepts


def argmax_mask(logits: Tensor) -> Tensor:
    """Return a mask (B, K, h, w), 1.0 where a class leads."""
    return (logits == logits.amax(1, keepdim=True)).to(logits.dtype)


def apply_actions(actions: Tensor, context: ActionContext, pushes: Tensor) -> Tensor:
    """Apply an action to every cell: actions int64 (B, h, w) in 0..CONCEPTS+C-1. Returns z_{t+1} (B, K, h, w).

    pushes: (K, CONCEPTS + C), the logits that each action adds to each class; 0 unless it is a concept.
    """
    logits = context.logits
    batch, classes, height, width = logits.shape
    stacked = torch.cat([p.flatten(2) for p in context], 2)
    index = _sources(actions, height, width).flatten(1)[:, None].expand(batch, classes, height * width)
    taken = torch.gather(stacked, 2, index).view(batch, classes, height, width)
    sharpen = (actions == SHARPEN).to(logits.dtype)[:, None]
    return taken + SHARPER * sharpen * argmax_mask(logits) + pushes.T[actions].permute(0, 3, 1, 2)


def outcomes(context: ActionContext, pushes: Tensor) -> Iterator[Tensor]:
    """Yield the result of every action, taken by all cells at once: CONCEPTS + C tensors (B, K, h, w)."""
    logits, (height, width) = context.logits, context.logits.shape[2:]
    yield logits
    margin = max(abs(step) for neighbor in NEIGHBORS for step in neighbor)
    wide = F.pad(logits, (margin,) * 4, mode="replicate")
    for down, right in NEIGHBORS:
        yield wide[..., margin + down : margin + down + height, margin + right : margin + right + width]
    yield from context[1:_BOUNDED]
    yield logits + SHARPER * argmax_mask(logits)
    for push in pushes.T[CONCEPTS:]:
        yield context.bounded + push[None, :, None, None]


def _sources(actions: Tensor, height: int, width: int) -> Tensor:
    """Return for each cell the flat index, int64 (B, h, w), into the stacked maps that its action reads."""
    kind = actions.clamp(max=CONCEPTS)  # all concepts move the cell's own logits
    steps = torch.tensor(_STEPS, device=actions.device)
    context = torch.tensor(_IMAGES, device=actions.device)
    rows = torch.arange(height, device=actions.device)[:, None] + steps[:, 0][kind]
    columns = torch.arange(width, device=actions.device) + steps[:, 1][kind]
    inside = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return context[kind] * (height * width) + inside
