"""The reinforcement stage: actor and critic on per-cell actions over a frozen base; see `rollout` for the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cliprl.engines import ClassSpec
from cliprl.models.config.config import Recipe
from cliprl.models.data.batch_loader import BatchLoader, FramePairs, Mixture, pair_batch
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.refiner import RefinerNetwork
from cliprl.models.network.text import class_embeddings
from cliprl.models.training.curriculum import Curriculum
from cliprl.models.training.parallel import device_of
from cliprl.models.training.stages.gradient_stage import GradientStage, seed_step
from cliprl.models.training.stages.rollout import (
    AllowedClasses,
    Observation,
    imitation_weight,
    observe,
    reinforcement_loss,
    rollout,
    simulate_prior,
)


class Reinforcement(GradientStage):
    """Trains the refiner on clean and corrupted frames; the prior is the refined result of the previous frame."""

    name = "reinforcement"

    def __init__(
        self,
        network: ClipSegmenter,
        refiner: RefinerNetwork,
        mixture: Mixture,
        classes: Sequence[ClassSpec],
        recipe: Recipe,
    ) -> None:
        self.network, self.refiner, self.classes = network, refiner, classes
        self.config, self.seed = recipe.reinforcement, recipe.seed
        self.truth, self.device, self.precision = AllowedClasses.of(classes), device_of(refiner), recipe.precision
        super().__init__(
            "refiner", refiner, torch.optim.Adam(refiner.parameters(), lr=self.config.rate), self.config.steps
        )
        self.growth = Curriculum(recipe.curriculum.reinforcement, self.steps)
        self.mixture, self.size = mixture, (recipe.network.height, recipe.network.width)
        self.batches = BatchLoader(self._batch, recipe.data.workers)
        self._text: Tensor | None = None

    def _batch(self, step: int) -> FramePairs:
        severity, zoom = self.growth.severity(step), self.growth.zoom(step)
        return pair_batch(self.mixture, self.config.batch, self.size, self.seed + 1, step, severity, zoom)

    def step(self, index: int) -> Mapping[str, float]:
        """Train on one batch of rollouts."""
        seed_step(self.seed, index)
        observed, unroll = self._observe(self.batches(index)), self.growth.unroll(index)
        prior = simulate_prior(self.refiner, observed, self.text, unroll)
        transitions = rollout(self.refiner, observed, prior, self.text, self.truth, unroll, self.config)
        loss, figures = reinforcement_loss(
            transitions, observed.labels, imitation_weight(index, self.steps, self.config), self.config
        )
        self.update(loss)
        return figures

    @property
    def text(self) -> Tensor:
        """Return the class embeddings (K, E); the first call also sets them as the refiner's concepts."""
        if self._text is None:
            with torch.no_grad():
                self._text = class_embeddings(self.network.eval(), self.classes)
            self.refiner.learn_concepts(self._text)
        return self._text

    def _observe(self, pairs: FramePairs) -> Observation:
        return observe(self.network, pairs.to(self.device), self.text, self.precision)
