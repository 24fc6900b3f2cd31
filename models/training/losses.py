"""Losses: DHN-NCE for images and captions; cross-entropy and Dice for masks with partial labels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cliprl.models.training.parallel import gather_rows, sum_over_processes


def dhn_nce(images: Tensor, texts: Tensor, temperature: float, hardness: float) -> Tensor:
    """Return the decoupled hard-negative noise-contrastive loss of MedCLIP-SAM (Koleilat et al. 2024) over both directions.

    images, texts: (B, E) of unit length; row i of one belongs to row i of the other; B >= 2. With s = I T' / tau:
        L = - sum_i s_ii + sum_i log sum_{j != i} W_ij exp(s_ij),   W_ij = (B - 1) exp(b s_ij) / sum_{k != i} exp(b s_ik)
    plus the same with rows and columns exchanged. No denominator contains the positive pair. The batch is that of all processes.
    """
    images, texts = gather_rows(images), gather_rows(texts)
    scores = images @ texts.T / temperature
    return _one_way(scores, hardness) + _one_way(scores.T, hardness)


def _one_way(scores: Tensor, hardness: float) -> Tensor:
    size = len(scores)
    own = torch.eye(size, dtype=torch.bool, device=scores.device)
    hard = (hardness * scores).masked_fill(own, float("-inf"))
    log_weights = math.log(size - 1) + hard - hard.logsumexp(1, keepdim=True)
    return (log_weights + scores).logsumexp(1).sum() - scores.diagonal().sum()


def partial_cross_entropy(logits: Tensor, labels: Tensor, allowed: Tensor) -> Tensor:
    """Return per cell the -log of the probability of all classes that a label code allows.

    logits (B, K, h, w); labels int64 (B, h, w) of codes; allowed bool (256, K). Returns (B, h, w), 0 where all are allowed.
    """
    forbidden = ~allowed[labels].permute(0, 3, 1, 2)
    return logits.logsumexp(1) - logits.masked_fill(forbidden, -1e4).logsumexp(1)


def dice_loss(logits: Tensor, labels: Tensor, instrument: Tensor, allowed: Tensor) -> Tensor:
    """Return 1 - soft Dice, the mean over the classes in the batch and the union of the instruments. Shapes as above.

    A class is compared where labels are exact; the union also where they are partial. instrument: bool (K,). The batch is
    that of all processes.
    """
    classes = logits.shape[1]
    p = logits.softmax(1)
    exact = labels < classes
    truth = torch.nn.functional.one_hot(labels.clamp(max=classes - 1), classes).permute(0, 3, 1, 2) * exact[:, None]
    overlap = sum_over_processes((p * truth).sum((0, 2, 3)))
    size = sum_over_processes((p * exact[:, None]).sum((0, 2, 3)) + truth.sum((0, 2, 3)))
    present = sum_over_processes(truth.sum((0, 2, 3)).float()) > 0
    scores = 2 * overlap / size.clamp(min=1)
    return 1 - torch.cat([scores[present], _union_dice(p, labels, instrument, allowed)[None]]).mean()


def _union_dice(p: Tensor, labels: Tensor, instrument: Tensor, allowed: Tensor) -> Tensor:
    sets = allowed[labels]
    yes = (sets & instrument).any(-1) & ~(sets & ~instrument).any(-1)
    known = yes | ~(sets & instrument).any(-1)
    seen = p[:, instrument].sum(1)
    return (2 * sum_over_processes((seen * yes).sum()) + 1) / (sum_over_processes((seen * known).sum() + yes.sum()) + 1)
