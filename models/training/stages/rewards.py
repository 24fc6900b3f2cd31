"""What an agent of the refiner earns, and what an action now is worth later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.models.config.config import ReinforcementConfig
from cliprl.models.data.sample import IGNORE
from cliprl.models.network.actions import KEEP, ActionContext, outcomes
from cliprl.models.training.parallel import sum_over_processes

MAX_GAIN = 1.0
# A class's probability beside the leading one's, below which it is taken for this.
MIN_PROBABILITY = 1e-37
# A label rarer than this share of all cells counts as if it had it.
MIN_LABEL_SHARE = 1e-4
# The neighbourhood whose rewards an agent has a share in: so many cells squared.
WINDOW = 5


def agent_rewards(
    context: ActionContext, pushes: Tensor, truths: Sequence[Tensor], config: ReinforcementConfig
) -> Tensor:
    """The reward of every action for the cell itself, float32 (B, A, h, w).

    It is the gain in log-likelihood of the truth, within +-GAIN_LIMIT, plus `label_reward` where the cell becomes right and
    less it where it becomes wrong, less the `effort` of any action but to keep.
    truths: each bool (B, K, h, w), the classes that a cell's label allows; the reward is the mean over them.
    """
    right = [truth.to(context.logits.dtype) for truth in truths]
    before = _log_likelihoods(context.logits, right)
    rewards = []
    for action, outcome in enumerate(outcomes(context, pushes)):
        pairs = zip(before, _log_likelihoods(outcome, right), strict=True)
        gains = [(now - was).clamp(-MAX_GAIN, MAX_GAIN) + config.label_reward * (hit - had)
                 for (was, had), (now, hit) in pairs]  # fmt: skip
        effort = 0.0 if action == KEEP else config.effort
        rewards.append(torch.stack(gains).mean(0) - effort)
    return torch.stack(rewards, 1)


def _log_likelihoods(logits: Tensor, right: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each truth the log-probability of its classes, and 1.0 where one of them leads; each (B, h, w).

    right: (B, K, h, w), 1 for the classes that the truth allows, else 0.
    """
    odds = (logits - logits.amax(1, keepdim=True)).exp()  # 1 for the class that leads
    mass = odds.sum(1)
    found = []
    for allowed in right:
        own = odds * allowed
        found.append(((own.sum(1) / mass).clamp(min=MIN_PROBABILITY).log(), (own.amax(1) >= 1).to(logits.dtype)))
    return found


def cell_weights(labels: Tensor, rarity: float) -> Tensor:
    """What the rewards of each cell of `labels`, int64 (B, h, w), count for in the loss, float32 (B, h, w).

    It is the label's share of the known cells of all processes to the power of -`rarity`: 1 everywhere where that is 0; and 0
    where nothing is known.
    """
    counts = sum_over_processes(torch.bincount(labels.flatten(), minlength=IGNORE + 1).float())
    counts[IGNORE] = 0
    shares = (counts / counts.sum().clamp(min=1)).clamp(min=MIN_LABEL_SHARE)
    each = shares**-rarity
    each[IGNORE] = 0
    return each[labels]


def neighbourhood_mean(rewards: Tensor) -> Tensor:
    """The mean of a reward map over the 5x5 cells around each cell, (B, h, w); what lies outside counts as 0.

    The reward-map convolution of PixelRL (Furuta et al. 2019) with a fixed box for a kernel.
    """
    return F.avg_pool2d(rewards[:, None], WINDOW, 1, WINDOW // 2)[:, 0]


def reward_to_go(rewards: Sequence[Tensor], share: float, discount: float) -> list[Tensor]:
    """What follows from each step's action besides the cell's own reward: `share` of its neighbours' rewards now, and the
    discounted rewards of all later steps, (B, h, w) a step."""
    later = torch.zeros_like(rewards[-1])
    backwards = []
    for reward in reversed(rewards):
        rest = share * neighbourhood_mean(reward) + discount * later
        backwards.append(rest)
        later = reward + rest
    return backwards[::-1]
