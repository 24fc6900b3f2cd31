"""The reinforcement stage: advantage actor-critic (A2C) on per-cell actions, over a frozen base.

Reward of a step, per cell: the gain in log-likelihood (clipped), plus a reward for the label becoming right less one for
its becoming wrong, plus a share of both's mean over the 5x5 cells around, for an agent's act helps its neighbours,
less the effort of any action but to keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec
from cliprl.models.actions import COUNT, KEEP, Pictures, apply_actions
from cliprl.models.config import Recipe, ReinforcementConfig
from cliprl.models.data.batches import Ahead, Mixture, Pairs, pair_batch
from cliprl.models.data.sample import IGNORE, allowed_classes
from cliprl.models.losses import partial_cross_entropy
from cliprl.models.network import ClipSegmenter
from cliprl.models.refiner import Refiner
from cliprl.models.supervised import cosine_rate, update
from cliprl.models.text import class_embeddings

GAIN_LIMIT = 1.0
WINDOW = 5


class Turn(NamedTuple):
    """One step of a rollout, each (B, h, w): log-probability of the action taken, value, entropy, reward."""

    log_probability: Tensor
    value: Tensor
    entropy: Tensor
    reward: Tensor


def step_reward(before: Tensor, after: Tensor, labels: Tensor, allowed: Tensor, config: ReinforcementConfig) -> Tensor:
    """Reward (B, h, w) for going from logits `before` to `after` (B, K, h, w), labels int64 (B, h, w)."""
    gain = partial_cross_entropy(before, labels, allowed) - partial_cross_entropy(after, labels, allowed)
    turned = _right(after, labels, allowed) - _right(before, labels, allowed)
    own = gain.clamp(-GAIN_LIMIT, GAIN_LIMIT) + config.label_reward * turned
    around = F.avg_pool2d(own[:, None], WINDOW, 1, WINDOW // 2)[:, 0]
    return own + config.neighbour_reward * around


def _right(logits: Tensor, labels: Tensor, allowed: Tensor) -> Tensor:
    """1.0 where the leading class is one that the label allows."""
    return allowed[labels].gather(-1, logits.argmax(1)[..., None])[..., 0].to(logits.dtype)


def sampled(log_policy: Tensor) -> Tensor:
    """Actions int64 (B, h, w) drawn from log-probabilities (B, A, h, w), by the Gumbel-max trick."""
    uniform = torch.rand_like(log_policy).clamp(min=1e-20)
    return (log_policy - torch.log(-torch.log(uniform))).argmax(1)


def returns(rewards: Sequence[Tensor], discount: float) -> list[Tensor]:
    """R_t = r_t + discount R_{t+1}, of the same length as `rewards`; the episode ends with the last."""
    total = torch.zeros_like(rewards[-1])
    backwards = []
    for reward in reversed(rewards):
        total = reward + discount * total
        backwards.append(total)
    return backwards[::-1]


class Reinforcement:
    """Trains the refiner alone. Clean and corrupted frames, whose prior is the refined result of the frame before."""

    name = "reinforcement"

    def __init__(
        self,
        network: ClipSegmenter,
        refiner: Refiner,
        mixture: Mixture,
        classes: Sequence[ClassSpec],
        recipe: Recipe,
    ) -> None:
        self.network, self.refiner, self.classes = network, refiner, classes
        self.config, self.seed, self.steps = recipe.reinforcement, recipe.seed, recipe.reinforcement.steps
        self.allowed = torch.from_numpy(allowed_classes(classes))
        self.optimizer = torch.optim.Adam(refiner.parameters(), lr=self.config.rate)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda s: cosine_rate(s, self.steps))
        self.mixture, self.size = mixture, (recipe.network.height, recipe.network.width)
        self.batches = Ahead(self._batch)
        self._text: Tensor | None = None

    def _batch(self, step: int) -> Pairs:
        """The curriculum: corruption grows from severity 1 to the recipe's over the first half of the steps."""
        grown = min(1.0, 2 * step / max(1, self.steps))
        severity = 1 + (self.config.severity - 1) * grown
        return pair_batch(self.mixture, self.config.batch, self.size, self.seed + 1, step, severity)

    def step(self, index: int) -> Mapping[str, float]:
        """One batch of rollouts."""
        torch.manual_seed(self.seed * 1_000_003 + index)
        pairs = self.batches(index)
        features, base, prior = self._see(pairs)
        turns, anchor = self._rollout(features, base, prior, pairs.labels, index)
        loss, figures = self._loss(turns, anchor, pairs.labels, 1 - index / self.steps)
        update(self.optimizer, self.scheduler, loss, self.refiner)
        return figures

    @torch.no_grad()
    def _see(self, pairs: Pairs) -> tuple[Tensor, Tensor, Tensor]:
        """Features and base logits of the frames, and their prior: what greedy refinement made of the frames before."""
        self.network.eval()
        if self._text is None:
            self._text = class_embeddings(self.network, self.classes)
        both_features, both = self.network(torch.cat([pairs.before, pairs.now]), self._text)
        (earlier_features, features), (earlier, base) = both_features.chunk(2), both.chunk(2)
        prior = earlier
        for _ in range(self.config.unroll):
            prior, _ = self.refiner(earlier_features, prior, earlier, earlier)
        return features, base, torch.where(pairs.first[:, None, None, None], base, prior)

    def _rollout(
        self, features: Tensor, base: Tensor, prior: Tensor, labels: Tensor, index: int
    ) -> tuple[list[Turn], Tensor]:
        """Sampled turns, and the anchor of one of them, each in its turn."""
        turns, logits, anchor = [], base, torch.zeros(())
        effort = self.config.effort * index / self.steps
        for number in range(self.config.unroll):
            pictures = Pictures.of(logits, base, prior)
            scores, value = self.refiner.act(features, pictures)
            log_policy = scores.log_softmax(1)
            actions = sampled(log_policy)
            following = apply_actions(actions, pictures)
            reward = step_reward(logits, following, labels, self.allowed, self.config) - effort * (actions != KEEP)
            taken = log_policy.gather(1, actions[:, None])[:, 0]
            turns.append(Turn(taken, value, -(log_policy.exp() * log_policy).sum(1), reward))
            if number == index % self.config.unroll:
                anchor = self._anchor(scores, pictures, labels)
            logits = following
        return turns, anchor

    def _anchor(self, scores: Tensor, pictures: Pictures, labels: Tensor) -> Tensor:
        """Mean cross-entropy of what the policy leads to on average: the mixture of every action's outcome."""
        mixed = torch.zeros_like(pictures.logits)
        shares = scores.softmax(1)
        for action in range(COUNT):
            everywhere = torch.full_like(labels, action)
            mixed = mixed + shares[:, action : action + 1] * apply_actions(everywhere, pictures)
        return partial_cross_entropy(mixed, labels, self.allowed).mean()

    def _loss(
        self, turns: list[Turn], anchor: Tensor, labels: Tensor, remaining: float
    ) -> tuple[Tensor, dict[str, float]]:
        goals = returns([turn.reward for turn in turns], self.config.discount)
        known = (labels != IGNORE).float()
        known = known / known.sum().clamp(min=1)
        actor, critic, entropy = (torch.zeros(()) for _ in range(3))
        for turn, goal in zip(turns, goals, strict=True):
            advantage = (goal - turn.value).detach()
            actor = actor - (turn.log_probability * advantage * known).sum()
            critic = critic + ((turn.value - goal).square() * known).sum()
            entropy = entropy + (turn.entropy * known).sum()
        loss = actor + 0.5 * critic - self.config.entropy * remaining * entropy + self.config.anchor * anchor
        reward = sum(float((turn.reward * known).sum()) for turn in turns)
        return loss, {"reward": reward, "critic": critic.item(), "entropy": entropy.item() / len(turns)}

    def state(self) -> dict[str, Any]:
        """Refiner, optimiser and schedule; the base stays what the stage before left."""
        return {
            "refiner": self.refiner.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.refiner.load_state_dict(state["refiner"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
