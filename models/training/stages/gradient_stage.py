"""What all training stages share: optimizer, learning rate schedule, update and checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cliprl.models.training.checkpoint import NotFiniteError
from cliprl.models.training.parallel import mean_gradients

WARM_UP = 50
CLIP_NORM = 2.0


def cosine_rate(step: int, steps: int) -> float:
    """Return the share of the full learning rate: a linear warm-up, then half a cosine down to a hundredth."""
    warm = min(WARM_UP, max(1, steps // 10))
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def seed_step(seed: int, index: int) -> None:
    """Seed torch for a step by its number: a text encoder of transformers has dropout."""
    torch.manual_seed(seed * 1_000_003 + index)


def optimizer_step(optimizer: torch.optim.Optimizer, scheduler: Any, loss: Tensor, module: nn.Module) -> None:
    """Take one optimizer step on `loss`, with gradients averaged over all processes and clipped.

    Raises NotFiniteError, with unchanged weights, if the loss or its gradient is not finite.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    mean_gradients(module)
    norm = nn.utils.clip_grad_norm_(module.parameters(), CLIP_NORM)
    for name, value in (("the loss", loss.item()), ("the gradient's norm", norm.item())):
        if not math.isfinite(value):
            raise NotFiniteError(f"{name} is {value}")
    optimizer.step()
    scheduler.step()


class GradientStage:
    """A stage that trains a module, stored as `key` in checkpoints, over `steps` steps of a cosine schedule."""

    def __init__(self, key: str, module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.key, self.module, self.optimizer, self.steps = key, module, optimizer, steps
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine_rate(step, steps))

    def update(self, loss: Tensor) -> None:
        """Take one optimizer step. Raises NotFiniteError, with unchanged weights, if loss or gradient is not finite."""
        optimizer_step(self.optimizer, self.scheduler, loss, self.module)

    def state(self) -> dict[str, Any]:
        """Return module, optimizer and schedule."""
        return {
            self.key: self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore `state`."""
        self.module.load_state_dict(state[self.key])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
