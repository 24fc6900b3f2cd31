"""Rewards of the refiner's agents, and discounted returns."""

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
# Lower bound of a probability relative to the leading class.
LEAST_PROBABILITY = 1e-37
# Lower bound of a label's share of all cells in `cell_weights`.
MIN_LABEL_SHARE = 1e-4
# Width in cells of the square neighborhood whose rewards an agent shares.
REWARD_WINDOW = 5


def agent_rewards(
    context: ActionContext, pushes: Tensor, truths: Sequence[Tensor], config: ReinforcementConfig
) -> Tensor:
    """Return the reward of every action for the cell itself, float32 (B, A, h, w).

    It is the gain in log-likelihood of the truth, clipped to +-MAX_GAIN, plus `label_reward` if the cell becomes right, minus
    it if the cell becomes wrong, minus `effort` for every action but "keep".
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
    """Return for each truth the log-probability of its classes, and 1.0 where one of them leads; each (B, h, w).

    right: (B, K, h, w), 1 for the classes that the truth allows, else 0.
    """
    odds = (logits - logits.amax(1, keepdim=True)).exp()  # 1 for the class that leads
    mass = odds.sum(1)
    found = []
    for allowed in right:
        own = odds * allowed
        found.append(((own.sum(1) / mass).clamp(min=LEAST_PROBABILITY).log(), (own.amax(1) >= 1).to(logits.dtype)))
    return found


def cell_weights(labels: Tensor, rarity: float) -> Tensor:
    """Return the weight in the loss of each cell of `labels`, int64 (B, h, w): float32 (B, h, w).

    It is the label's share of the known cells of all processes to the power of -`rarity`; 0 for unknown labels.
    """
    counts = sum_over_processes(torch.bincount(labels.flatten(), minlength=IGNORE + 1).float())
    counts[IGNORE] = 0
    shares = (counts / counts.sum().clamp(min=1)).clamp(min=MIN_LABEL_SHARE)
    each = shares**-rarity
    each[IGNORE] = 0
    return each[labels]


def neighborhood_mean(rewards: Tensor) -> Tensor:
    """Return the mean of a reward map over the 5x5 cells around each cell, (B, h, w); cells outside count as 0.

    The reward-map convolution of PixelRL (Furuta et al. 2019) with a fixed box for a kernel.
    """
    return F.avg_pool2d(rewards[:, None], REWARD_WINDOW, 1, REWARD_WINDOW // 2)[:, 0]


def reward_to_go(rewards: Sequence[Tensor], share: float, discount: float) -> list[Tensor]:
    """Return for each step the return after the cell's own reward, (B, h, w).

    It is `share` of the neighbors' rewards now, plus the discounted rewards of all later steps.
    """
    later = torch.zeros_like(rewards[-1])
    backwards = []
    for reward in reversed(rewards):
        rest = share * neighborhood_mean(reward) + discount * later
        backwards.append(rest)
        later = reward + rest
    return backwards[::-1]
