"""Rollouts and losses of the refiner: reinforcement, and the supervised control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec
from cliprl.models.config.config import ReinforcementConfig
from cliprl.models.data.batch_loader import FramePairs
from cliprl.models.data.sample import allowed_classes, allowed_groups, instrument_classes
from cliprl.models.network.actions import ActionContext, apply_actions, outcomes
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.training.losses import dice_loss, partial_cross_entropy
from cliprl.models.training.parallel import autocast, sum_over_processes, world_size
from cliprl.models.training.stages.rewards import agent_rewards, cell_weights, reward_to_go

# Lower bound of the uniform numbers of the Gumbel-max trick.
MIN_PROBABILITY = 1e-20
# Simulated priors: the largest number of refinements, the largest shift in cells between them, and the share of priors from
# another image.
MAX_PRIOR_PASSES, MAX_SHIFT, CUT_SHARE = 3, 2, 0.05


class Observation(NamedTuple):
    """The output of the frozen base for a batch: features (B, D, h, w) and logits (B, K, h, w) of the frames and of the
    previous frames, label codes int64 (B, h, w), and bool (B,) for frames whose previous frame counts as unknown."""

    features: Tensor
    base: Tensor
    earlier_features: Tensor
    earlier: Tensor
    labels: Tensor
    first: Tensor


class Transition(NamedTuple):
    """One step of a rollout: rewards and log-probabilities of every action (B, A, h, w); log-probability and reward of the
    sampled action, and the critic's estimate of the later return, each (B, h, w)."""

    rewards: Tensor
    log_policy: Tensor
    action_log_prob: Tensor
    reward: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True)
class AllowedClasses:
    """The classes that each label code allows; if some are instruments, also as instrument or not: bool (256, K)."""

    tables: tuple[Tensor, ...]
    instrument: Tensor

    @classmethod
    def of(cls, classes: Sequence[ClassSpec]) -> AllowedClasses:
        """Return the tables of these classes."""
        instrument = instrument_classes(classes)
        tables = [allowed_classes(classes)]
        if 1 < int(instrument.sum()) < len(classes):
            tables.append(allowed_groups(classes))
        return cls(tuple(torch.from_numpy(t) for t in tables), torch.from_numpy(instrument))

    def maps(self, labels: Tensor) -> list[Tensor]:
        """Return for each table the classes that labels (B, h, w) allow: bool (B, K, h, w)."""
        return [table.to(labels.device)[labels].permute(0, 3, 1, 2).contiguous() for table in self.tables]


@torch.no_grad()
def observe(network: ClipSegmenter, pairs: FramePairs, text: Tensor, precision: str) -> Observation:
    """Run the frozen base on a batch of frame pairs in "f32" or "bf16"; text (K, E) holds the class embeddings."""
    with autocast(precision, text.device):
        both_features, both = (x.float() for x in network.eval()(torch.cat([pairs.before, pairs.now]), text))
    (earlier_features, features), (earlier, base) = both_features.chunk(2), both.chunk(2)
    return Observation(features, base, earlier_features, earlier, pairs.labels, pairs.first)


@torch.no_grad()
def simulate_prior(refiner: RefinerNetwork, seen: Observation, text: Tensor, steps: int, soft: bool = False) -> Tensor:
    """Simulate the prior of a live stream: the refined result of the previous frames.

    A stream's prior accumulates the errors of many frames. Therefore the previous frames are refined up to MAX_PRIOR_PASSES
    times, each time from a slightly shifted prior. Some priors are taken from another image, as after a cut; if the previous
    frame is unknown, the prior is the base.
    """
    prior = seen.earlier
    for _ in range(int(torch.randint(1, MAX_PRIOR_PASSES + 1, ()))):
        refined = seen.earlier
        for _ in range(steps):
            if soft:
                context = refiner.context(refined, seen.earlier, prior)
                refined = expected_step(refiner, seen.earlier_features, context, text)
            else:
                refined, _ = refiner(seen.earlier_features, refined, seen.earlier, prior, text)
        prior = shift_randomly(refined)
    cut = torch.rand(len(prior), device=prior.device) < CUT_SHARE
    prior = torch.where(cut[:, None, None, None], prior.roll(1, 0), prior)
    return torch.where(seen.first[:, None, None, None], seen.base, prior)


def shift_randomly(logits: Tensor) -> Tensor:
    """Shift logits (B, K, h, w) by up to WANDER cells; the edge is repeated."""
    height, width = logits.shape[2:]
    down, right = (int(n) for n in torch.randint(0, 2 * MAX_SHIFT + 1, (2,)))
    return F.pad(logits, (MAX_SHIFT,) * 4, mode="replicate")[..., down : down + height, right : right + width]


def expected_step(refiner: RefinerNetwork, features: Tensor, context: ActionContext, text: Tensor) -> Tensor:
    """Take a soft step: the mean of all actions' outcomes, weighted by the policy; z_{t+1} (B, K, h, w)."""
    policy = refiner.act(features, context, text)[0].softmax(1)
    every = outcomes(context, refiner.pushes(text))
    return torch.stack([policy[:, n, None] * outcome for n, outcome in enumerate(every)]).sum(0)


def sample_actions(log_policy: Tensor) -> Tensor:
    """Sample actions int64 (B, h, w) from log-probabilities (B, A, h, w) with the Gumbel-max trick."""
    uniform = torch.rand_like(log_policy).clamp(min=MIN_PROBABILITY)
    return (log_policy - torch.log(-torch.log(uniform))).argmax(1)


def rollout(
    refiner: RefinerNetwork,
    seen: Observation,
    prior: Tensor,
    text: Tensor,
    truth: AllowedClasses,
    steps: int,
    config: ReinforcementConfig,
) -> list[Transition]:
    """Roll out an episode of `steps` sampled steps from the base."""
    transitions, logits, pushes = [], seen.base, refiner.pushes(text)
    truths = truth.maps(seen.labels)
    for _ in range(steps):
        context = refiner.context(logits, seen.base, prior)
        scores, value = refiner.act(seen.features, context, text)
        log_policy = scores.log_softmax(1)
        with torch.no_grad():
            rewards = agent_rewards(context, pushes, truths, config)
            action = sample_actions(log_policy)
            logits = apply_actions(action, context, pushes)
        index = action[:, None]
        transitions.append(
            Transition(rewards, log_policy, log_policy.gather(1, index)[:, 0], rewards.gather(1, index)[:, 0], value)
        )
    return transitions


def imitation_weight(step: int, steps: int, config: ReinforcementConfig) -> float:
    """Return the weight of the imitation loss: it falls from `anchor` to `anchor_left` of it over the first half of the steps."""
    return config.anchor * max(config.anchor_left, 1 - 2 * step / max(1, steps))


def reinforcement_loss(
    transitions: Sequence[Transition], labels: Tensor, imitation_weight: float, config: ReinforcementConfig
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of an episode and its figures; "greedy reward" is the reward of the likeliest actions, in hundredths.

    The immediate reward is known for every action, so the actor's gradient is the exact gradient of the expected reward. With
    `foresight`, the later return (neighbors, later steps) minus the critic's estimate is the advantage of the sampled action,
    as in A2C. The imitation loss, a cross-entropy with the softmax of the rewards over `temperature`, increases the
    probability of good actions that the policy does not choose yet: there the gradient of an expectation vanishes. Cells
    are weighted by `cell_weights`, over the batch of all processes.
    """
    counted = cell_weights(labels, config.rarity)
    weight = counted / (sum_over_processes(counted.sum()) / world_size()).clamp(min=1)
    returns = reward_to_go([transition.reward for transition in transitions], config.neighbour_reward, config.discount)
    actor, critic, imitation, greedy = (torch.zeros((), device=labels.device) for _ in range(4))
    for transition, later_return in zip(transitions, returns, strict=True):
        expected = (transition.log_policy.exp() * transition.rewards).sum(1)
        advantage = (later_return - transition.value).detach()
        target = (transition.rewards / config.temperature).softmax(1)
        actor = actor - ((expected + config.foresight * transition.action_log_prob * advantage) * weight).sum()
        critic = critic + ((transition.value - later_return).square() * weight).sum()
        imitation = imitation - ((target * transition.log_policy).sum(1) * weight).sum()
        best = transition.rewards.gather(1, transition.log_policy.argmax(1, keepdim=True))[:, 0]
        greedy = greedy + (best * weight).sum()
    figures = {"actor": actor.item(), "greedy reward": 100 * greedy.item()}
    if not config.foresight:
        return actor + imitation_weight * imitation, figures
    return actor + config.critic * critic + imitation_weight * imitation, figures | {"critic": critic.item()}


def unrolled_loss(
    refiner: RefinerNetwork, seen: Observation, prior: Tensor, text: Tensor, truth: AllowedClasses, steps: int
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of the supervised control: cross-entropy and Dice of every soft step, back-propagated through all."""
    allowed, logits, loss = truth.tables[0].to(seen.labels.device), seen.base, torch.zeros((), device=seen.base.device)
    for _ in range(steps):
        logits = expected_step(refiner, seen.features, refiner.context(logits, seen.base, prior), text)
        cross_entropy = partial_cross_entropy(logits, seen.labels, allowed).mean()
        loss = loss + (cross_entropy + 0.5 * dice_loss(logits, seen.labels, truth.instrument, allowed)) / steps
    return loss, {"loss": loss.item()}
