"""How the refiner learns from a batch that the base has seen: reinforcement, and the supervised control beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import ClassSpec
from cliprl.models.config.config import ReinforcementConfig
from cliprl.models.data.batch_loader import Pairs
from cliprl.models.data.sample import allowed_classes, instrument_classes, instrument_or_not
from cliprl.models.network.actions import ActionContext, apply_actions, outcomes
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import Refiner
from cliprl.models.training.losses import dice_loss, partial_cross_entropy
from cliprl.models.training.parallel import autocast, size, total
from cliprl.models.training.stages.rewards import agent_rewards, reward_to_go, weights_of

# Probabilities below this are drawn as if they were it.
RAREST = 1e-20
# How often at most the frame before is refined again, by how many cells at most the picture moves in between, and the share
# of priors that are another picture's.
PASSES, WANDER, CUTS = 3, 2, 0.05


class Observed(NamedTuple):
    """What the frozen base makes of a batch: features (B, D, h, w) and logits (B, K, h, w) of the frames and of the frames
    before them, label codes int64 (B, h, w), and bool (B,) where the frame before is to be taken as unknown."""

    features: Tensor
    base: Tensor
    earlier_features: Tensor
    earlier: Tensor
    labels: Tensor
    first: Tensor


class Transition(NamedTuple):
    """One step of a rollout: every action's own reward and log-probability (B, A, h, w), that of the action taken, its own
    reward, and the critic's value of what follows from it, each (B, h, w)."""

    own: Tensor
    log_policy: Tensor
    taken: Tensor
    reward: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True)
class Truth:
    """What labels say of classes and, where some are instruments, of instrument or not: tables bool (256, K)."""

    tables: tuple[Tensor, ...]
    instrument: Tensor

    @classmethod
    def of(cls, classes: Sequence[ClassSpec]) -> Truth:
        """The tables of these classes."""
        instrument = instrument_classes(classes)
        tables = [allowed_classes(classes)]
        if 1 < int(instrument.sum()) < len(classes):
            tables.append(instrument_or_not(classes))
        return cls(tuple(torch.from_numpy(t) for t in tables), torch.from_numpy(instrument))

    def maps(self, labels: Tensor) -> list[Tensor]:
        """Of labels (B, h, w), for each table: bool (B, K, h, w), the classes that a label allows."""
        return [table.to(labels.device)[labels].permute(0, 3, 1, 2).contiguous() for table in self.tables]


@torch.no_grad()
def observe(network: ClipSegmenter, pairs: Pairs, text: Tensor, precision: str) -> Observed:
    """Let the base, frozen, see a batch of pairs in "f32" or "bf16"; text (K, E) are the classes' embeddings."""
    with autocast(precision, text.device):
        both_features, both = (x.float() for x in network.eval()(torch.cat([pairs.before, pairs.now]), text))
    (earlier_features, features), (earlier, base) = both_features.chunk(2), both.chunk(2)
    return Observed(features, base, earlier_features, earlier, pairs.labels, pairs.first)


@torch.no_grad()
def prior_of(refiner: Refiner, seen: Observed, text: Tensor, steps: int, soft: bool = False) -> Tensor:
    """The prior that a live stream would have: what refinement, itself with a prior, made of the frames before.

    A stream's prior has come through many frames: what one frame's refinement does wrong, the next one starts from. So the
    frames before are refined up to PASSES times, each time from a prior that the picture has moved away from a little. Some
    priors belong to another picture, as after a cut; where the frame before is unknown, the base is the prior.
    """
    prior = seen.earlier
    for _ in range(int(torch.randint(1, PASSES + 1, ()))):
        refined = seen.earlier
        for _ in range(steps):
            if soft:
                pictures = refiner.pictures(refined, seen.earlier, prior)
                refined = mixed(refiner, seen.earlier_features, pictures, text)
            else:
                refined, _ = refiner(seen.earlier_features, refined, seen.earlier, prior, text)
        prior = wandered(refined)
    cut = torch.rand(len(prior), device=prior.device) < CUTS
    prior = torch.where(cut[:, None, None, None], prior.roll(1, 0), prior)
    return torch.where(seen.first[:, None, None, None], seen.base, prior)


def wandered(logits: Tensor) -> Tensor:
    """The same (B, K, h, w), up to WANDER cells away: the edge is repeated."""
    height, width = logits.shape[2:]
    down, right = (int(n) for n in torch.randint(0, 2 * WANDER + 1, (2,)))
    return F.pad(logits, (WANDER,) * 4, mode="replicate")[..., down : down + height, right : right + width]


def mixed(refiner: Refiner, features: Tensor, pictures: ActionContext, text: Tensor) -> Tensor:
    """A soft step: the mean of all actions' outcomes, weighted by the policy; z_{t+1} (B, K, h, w)."""
    policy = refiner.act(features, pictures, text)[0].softmax(1)
    every = outcomes(pictures, refiner.pushes(text))
    return torch.stack([policy[:, n, None] * outcome for n, outcome in enumerate(every)]).sum(0)


def sampled(log_policy: Tensor) -> Tensor:
    """Actions int64 (B, h, w) drawn from log-probabilities (B, A, h, w), by the Gumbel-max trick."""
    uniform = torch.rand_like(log_policy).clamp(min=RAREST)
    return (log_policy - torch.log(-torch.log(uniform))).argmax(1)


def rollout(
    refiner: Refiner, seen: Observed, prior: Tensor, text: Tensor, truth: Truth, steps: int, config: ReinforcementConfig
) -> list[Transition]:
    """An episode of `steps` sampled steps from the base."""
    turns, logits, pushes = [], seen.base, refiner.pushes(text)
    truths = truth.maps(seen.labels)
    for _ in range(steps):
        pictures = refiner.pictures(logits, seen.base, prior)
        scores, value = refiner.act(seen.features, pictures, text)
        log_policy = scores.log_softmax(1)
        with torch.no_grad():
            own = agent_rewards(pictures, pushes, truths, config)
            action = sampled(log_policy)
            logits = apply_actions(action, pictures, pushes)
        index = action[:, None]
        turns.append(Transition(own, log_policy, log_policy.gather(1, index)[:, 0], own.gather(1, index)[:, 0], value))
    return turns


def anchor_at(step: int, steps: int, config: ReinforcementConfig) -> float:
    """The anchor's weight: it falls from `anchor` to `anchor_left` of it over the first half of the steps, and stays."""
    return config.anchor * max(config.anchor_left, 1 - 2 * step / max(1, steps))


def reinforcement_loss(
    turns: Sequence[Transition], labels: Tensor, anchor: float, config: ReinforcementConfig
) -> tuple[Tensor, dict[str, float]]:
    """The loss of an episode and its figures; what the likeliest actions would earn in hundredths of a reward.

    The actor's own reward is known for every action, so its gradient is exact: that of the expected reward. What follows
    from the action taken (neighbours, later steps) is credited to that action as in A2C, less the critic's estimate, where
    there is `foresight`. The anchor, a cross-entropy with the softmax of the rewards over `temperature`, pulls towards good
    actions while the policy still gives them no probability: there the gradient of an expectation vanishes. `anchor` is its
    weight. Cells count as `weights_of` says, as in one batch of all processes.
    """
    counted = weights_of(labels, config.rarity)
    weight = counted / (total(counted.sum()) / size()).clamp(min=1)
    rests = reward_to_go([turn.reward for turn in turns], config.neighbour_reward, config.discount)
    actor, critic, pull, earned = (torch.zeros((), device=labels.device) for _ in range(4))
    for turn, rest in zip(turns, rests, strict=True):
        expected = (turn.log_policy.exp() * turn.own).sum(1)
        surprise = (rest - turn.value).detach()
        target = (turn.own / config.temperature).softmax(1)
        actor = actor - ((expected + config.foresight * turn.taken * surprise) * weight).sum()
        critic = critic + ((turn.value - rest).square() * weight).sum()
        pull = pull - ((target * turn.log_policy).sum(1) * weight).sum()
        best = turn.own.gather(1, turn.log_policy.argmax(1, keepdim=True))[:, 0]
        earned = earned + (best * weight).sum()
    figures = {"actor": actor.item(), "greedy reward": 100 * earned.item()}
    if not config.foresight:
        return actor + anchor * pull, figures
    return actor + config.critic * critic + anchor * pull, figures | {"critic": critic.item()}


def unrolled_loss(
    refiner: Refiner, seen: Observed, prior: Tensor, text: Tensor, truth: Truth, steps: int
) -> tuple[Tensor, dict[str, float]]:
    """The supervised control: cross-entropy and Dice of every soft step, by back-propagation through all of them."""
    allowed, logits, loss = truth.tables[0].to(seen.labels.device), seen.base, torch.zeros((), device=seen.base.device)
    for _ in range(steps):
        logits = mixed(refiner, seen.features, refiner.pictures(logits, seen.base, prior), text)
        cross_entropy = partial_cross_entropy(logits, seen.labels, allowed).mean()
        loss = loss + (cross_entropy + 0.5 * dice_loss(logits, seen.labels, truth.instrument, allowed)) / steps
    return loss, {"loss": loss.item()}
