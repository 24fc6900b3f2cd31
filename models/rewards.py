"""What an agent of the refiner earns, and what an action now is worth later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.models.actions import KEEP, Pictures, outcomes
from cliprl.models.config import ReinforcementConfig

GAIN_LIMIT = 1.0
# Added to the logits of classes that are wrong.
LOW = -1e4
# The neighbourhood whose rewards an agent has a share in: so many cells squared.
WINDOW = 5


def own_rewards(pictures: Pictures, pushes: Tensor, truths: Sequence[Tensor], config: ReinforcementConfig) -> Tensor:
    """The reward of every action for the cell itself, float32 (B, A, h, w).

    It is the gain in log-likelihood of the truth, within +-GAIN_LIMIT, plus `label_reward` where the cell becomes right and
    less it where it becomes wrong, less the `effort` of any action but to keep.
    truths: each bool (B, K, h, w), the classes that a cell's label allows; the reward is the mean over them.
    """
    wrong = [LOW * (~truth).to(pictures.logits.dtype) for truth in truths]
    before = _judged(pictures.logits, wrong)
    rewards = []
    for action, outcome in enumerate(outcomes(pictures, pushes)):
        pairs = zip(before, _judged(outcome, wrong), strict=True)
        gains = [(now - was).clamp(-GAIN_LIMIT, GAIN_LIMIT) + config.label_reward * (hit - had)
                 for (was, had), (now, hit) in pairs]  # fmt: skip
        effort = 0.0 if action == KEEP else config.effort
        rewards.append(torch.stack(gains).mean(0) - effort)
    return torch.stack(rewards, 1)


def _judged(logits: Tensor, wrong: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each truth the log-probability of its classes, and 1.0 where one of them leads; each (B, h, w).

    wrong: (B, K, h, w), LOW for the classes that the truth does not allow, else 0.
    """
    total, best = logits.logsumexp(1), logits.amax(1)
    found = []
    for low in wrong:
        allowed = logits + low
        found.append((allowed.logsumexp(1) - total, (allowed.amax(1) >= best).to(logits.dtype)))
    return found


def around(rewards: Tensor) -> Tensor:
    """The mean of a reward map over the 5x5 cells around each cell, (B, h, w); what lies outside counts as 0.

    The reward-map convolution of PixelRL (Furuta et al. 2019) with a fixed box for a kernel.
    """
    return F.avg_pool2d(rewards[:, None], WINDOW, 1, WINDOW // 2)[:, 0]


def rest_of(rewards: Sequence[Tensor], share: float, discount: float) -> list[Tensor]:
    """What follows from each step's action besides the cell's own reward: `share` of its neighbours' rewards now, and the
    discounted rewards of all later steps, (B, h, w) a step."""
    later = torch.zeros_like(rewards[-1])
    backwards = []
    for reward in reversed(rewards):
        rest = share * around(reward) + discount * later
        backwards.append(rest)
        later = reward + rest
    return backwards[::-1]
