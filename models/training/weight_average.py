"""An exponential moving average of a network's trained weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages the trained weights over about the last 1 / (1 - `decay`) steps; over all steps while these are fewer."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._trained = {name: weight for name, weight in network.named_parameters() if weight.requires_grad}
        self._decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in self._trained.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the weights after step number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, weight in self._trained.items():
            self.weights[name].lerp_(weight, 1 - decay)

    @torch.no_grad()
    def copy_to_network(self) -> None:
        """Replace the network's weights by their average."""
        for name, weight in self._trained.items():
            weight.copy_(self.weights[name])

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Restore `weights`. Raises KeyError if one is missing."""
        for name, average in self.weights.items():
            average.copy_(weights[name])
