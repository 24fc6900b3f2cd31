"""The reinforcement stage: actor-critic on per-cell actions, over a frozen base.

Reward of a step, per cell: the gain in log-likelihood of the truth (clipped), plus a reward for the cell becoming right
less one for its becoming wrong, less the effort of any action but to keep; plus a share of its mean over the 5x5 cells
around, for an agent's act helps its neighbours. Truth is "instrument or not": what an overlay must not get wrong.

Plain A2C was tried first, with sampled and with exactly expected rewards: a random action mostly harms, so the policy
learned never to act before it learned where to, and its gradient vanished there. So the actor is a Boltzmann policy whose
scores are action values, fitted by regression, which does not vanish. A cell's own reward is known for every action; what
the sampled rollout adds (neighbours, later steps), less the critic's estimate of it, is credited to the action taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec
from cliprl.models.actions import KEEP, Pictures, apply_actions, outcomes
from cliprl.models.config import Recipe, ReinforcementConfig
from cliprl.models.data.batches import Ahead, Mixture, Pairs, pair_batch
from cliprl.models.data.sample import IGNORE, instrument_or_not
from cliprl.models.network import ClipSegmenter
from cliprl.models.refiner import Refiner
from cliprl.models.supervised import cosine_rate, update
from cliprl.models.text import class_embeddings

GAIN_LIMIT = 1.0
SMALLEST = 1e-6
# Weight of a cell without any doubt, beside 1 for one in utter doubt.
CALM = 0.1
WINDOW = 5


class Turn(NamedTuple):
    """One step of a rollout: every action's own reward and score (B, COUNT, h, w), the action taken (B, 1, h, w), and
    (B, h, w) the reward that the neighbours gave, the critic's value, and how much the cell counts."""

    own: Tensor
    scores: Tensor
    taken: Tensor
    shared: Tensor
    value: Tensor
    weight: Tensor

    @property
    def reward(self) -> Tensor:
        """What the action taken earned, (B, h, w)."""
        return self.own.gather(1, self.taken)[:, 0] + self.shared


def own_rewards(pictures: Pictures, right: Tensor, config: ReinforcementConfig) -> Tensor:
    """The reward of every action for the cell itself, float32 (B, COUNT, h, w).

    right: float32 (B, K, h, w), 1.0 for the classes that a cell's label allows.
    """
    likelihood, hit = _judged(pictures.logits, right)
    rewards = []
    for action, outcome in enumerate(outcomes(pictures)):
        later, later_hit = _judged(outcome, right)
        gain = (later.log() - likelihood.log()).clamp(-GAIN_LIMIT, GAIN_LIMIT)
        effort = 0.0 if action == KEEP else config.effort
        rewards.append(gain + config.label_reward * (later_hit - hit) - effort)
    return torch.stack(rewards, 1)


def _judged(logits: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The probability of the right classes, at least SMALLEST, and 1.0 where the leading class is one; each (B, h, w)."""
    likelihood = (logits.softmax(1) * right).sum(1).clamp(min=SMALLEST)
    return likelihood, right.gather(1, logits.argmax(1, keepdim=True))[:, 0]


def neighbours(own: Tensor) -> Tensor:
    """The mean reward of the 5x5 cells around each cell, (B, h, w); what lies outside the picture counts as 0."""
    return F.avg_pool2d(own[:, None], WINDOW, 1, WINDOW // 2)[:, 0]


def _weight(logits: Tensor, labels: Tensor) -> Tensor:
    """How much a cell counts, (B, h, w), of sum 1: more where the state is uncertain, nothing where the truth is unknown.

    It depends on what the agent sees, not on the truth beyond that: what a state is worth on average stays unbiased.
    """
    doubt = CALM + 1 - logits.softmax(1).square().sum(1)
    weight = doubt * (labels != IGNORE)
    return weight / weight.sum().clamp(min=SMALLEST)


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
        self.allowed = torch.from_numpy(instrument_or_not(classes))
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
        turns = self._rollout(features, base, prior, pairs.labels)
        loss, figures = self._loss(turns)
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

    def _rollout(self, features: Tensor, base: Tensor, prior: Tensor, labels: Tensor) -> list[Turn]:
        turns, logits = [], base
        right = self.allowed[labels].permute(0, 3, 1, 2).float()
        for _ in range(self.config.unroll):
            pictures = Pictures.of(logits, base, prior)
            scores, value = self.refiner.act(features, pictures)
            with torch.no_grad():
                own, weight = own_rewards(pictures, right, self.config), _weight(logits, labels)
                taken = sampled((scores / self.config.temperature).log_softmax(1))[:, None]
                shared = self.config.neighbour_reward * neighbours(own.gather(1, taken)[:, 0])
                logits = apply_actions(taken[:, 0], pictures)
            turns.append(Turn(own, scores, taken, shared, value, weight))
        return turns

    def _loss(self, turns: list[Turn]) -> tuple[Tensor, dict[str, float]]:
        goals = returns([turn.reward for turn in turns], self.config.discount)
        actor, critic, earned = torch.zeros(()), torch.zeros(()), 0.0
        for turn, goal in zip(turns, goals, strict=True):
            own = turn.own.gather(1, turn.taken)
            rest = goal - own[:, 0]
            surprise = (rest - turn.value).detach()[:, None]
            aim = turn.own.scatter(1, turn.taken, own + surprise)
            actor = actor + ((turn.scores - aim).square().sum(1) * turn.weight).sum()
            critic = critic + ((turn.value - rest).square() * turn.weight).sum()
            best = turn.own.gather(1, turn.scores.argmax(1, keepdim=True))[:, 0]
            earned += (best * turn.weight).sum().item()
        figures = {"actor": actor.item(), "critic": critic.item(), "greedy reward": 100 * earned}
        return actor + 0.5 * critic, figures

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
