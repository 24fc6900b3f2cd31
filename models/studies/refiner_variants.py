"""The refiners that the study compares: how each learns from the same batches, and how each takes a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cliprl.engines import ClassSpec
from cliprl.models.config.config import Recipe
from cliprl.models.data.batch_loader import BatchLoader, Mixture, pair_batch
from cliprl.models.network.actions import apply_actions
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.training.curriculum import Curriculum
from cliprl.models.training.stages.gradient_stage import cosine_rate, optimizer_step
from cliprl.models.training.stages.rollout import (
    AllowedClasses,
    Observation,
    expected_step,
    imitation_weight,
    observe,
    reinforcement_loss,
    rollout,
    simulate_prior,
    unrolled_loss,
)


@dataclass(frozen=True, slots=True)
class RefinerVariant:
    """One refiner: how it learns ("rl", "supervised", or nothing), and what it is denied or given."""

    name: str
    learns: str = "rl"
    curriculum: bool = True
    prior: bool = True


BASE = RefinerVariant("base only", learns="")
RANDOM = RefinerVariant("random policy", learns="")
VARIANTS = (
    BASE,
    RANDOM,
    RefinerVariant("supervised, unrolled", learns="supervised"),
    RefinerVariant("RL"),
    RefinerVariant("RL without curriculum", curriculum=False),
    RefinerVariant("RL without prior", prior=False),
)


def observe_batches(network: ClipSegmenter, mixture: Mixture, text: Tensor, recipe: Recipe) -> Iterator[Observation]:
    """Yield the base's outputs for the batches of all steps, with FP16 features; all arms of a seed train on them."""
    config, growth = recipe.reinforcement, Curriculum(recipe.curriculum.reinforcement, recipe.reinforcement.steps)
    size = (recipe.network.height, recipe.network.width)
    batches = BatchLoader(
        lambda step: pair_batch(
            mixture, config.batch, size, recipe.seed + 1, step, growth.severity(step), growth.zoom(step)
        ),
        recipe.data.workers,
    )
    for step in range(config.steps):
        seen = observe(network, batches(step), text, recipe.precision)
        yield seen._replace(features=seen.features.half(), earlier_features=seen.earlier_features.half())
    batches.close()


def train_variant(
    arm: RefinerVariant,
    refiner: RefinerNetwork,
    batches: Sequence[Observation],
    text: Tensor,
    classes: Sequence[ClassSpec],
    recipe: Recipe,
    progress: Callable[[int], None],
) -> RefinerNetwork:
    """Train one arm on all batches, in their order or, without curriculum, shuffled. `progress` learns of each step."""
    if not arm.learns:
        return refiner
    steps, unroll = len(batches), recipe.curriculum.reinforcement.unroll[1]
    config, soft = recipe.reinforcement, arm.learns == "supervised"
    optimizer = torch.optim.Adam(refiner.parameters(), lr=config.control_rate if soft else config.rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: cosine_rate(s, steps))
    order = np.arange(steps) if arm.curriculum else np.random.default_rng(recipe.seed).permutation(steps)
    truth = AllowedClasses.of(classes)
    torch.manual_seed(recipe.seed)
    for step in range(steps):
        seen = batches[order[step]]
        seen = seen._replace(features=seen.features.float(), earlier_features=seen.earlier_features.float())
        prior = simulate_prior(refiner, seen, text, unroll, soft) if arm.prior else seen.base
        if soft:
            loss, _ = unrolled_loss(refiner, seen, prior, text, truth, unroll)
        else:
            transitions = rollout(refiner, seen, prior, text, truth, unroll, config)
            loss, _ = reinforcement_loss(transitions, seen.labels, imitation_weight(step, steps, config), config)
        optimizer_step(optimizer, scheduler, loss, refiner)
        progress(step + 1)
    return refiner


class RefinementStep(nn.Module):
    """A step of an arm at run time, with the arguments and results of a refiner's: greedy, soft or random."""

    def __init__(self, arm: RefinerVariant, refiner: RefinerNetwork) -> None:
        super().__init__()
        self.arm, self.refiner = arm, refiner
        self.draws = torch.Generator().manual_seed(0)

    def forward(
        self, features: Tensor, logits: Tensor, base: Tensor, prior: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """z_{t+1} (B, K, h, w), and the share of cells whose label changed."""
        prior = prior if self.arm.prior else base
        if self.arm == RANDOM:
            context, pushes = self.refiner.context(logits, base, prior), self.refiner.pushes(text)
            actions = torch.randint(pushes.shape[1], logits[:, 0].shape, generator=self.draws)
            return apply_actions(actions, context, pushes), torch.ones(())
        if self.arm.learns == "supervised":
            return expected_step(self.refiner, features, self.refiner.context(logits, base, prior), text), torch.ones(
                ()
            )
        refined, moved = self.refiner(features, logits, base, prior, text)
        return refined, moved
