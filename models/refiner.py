"""The RL refiner: every cell of the stride-4 grid is an agent that shares one small convolutional policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliprl.models.actions import COUNT, KEEP, Pictures, apply_actions, leaders

# The policy's view of the features is narrower than they are.
PROJECTED = 16
# At the start every agent keeps its distribution: step 0 is the base, and what follows must earn its place.
KEEP_BIAS = 0.2
STATE_MAPS = 11


class Refiner(nn.Module):
    """Policy and value over per-pixel actions. Nothing in it depends on the number of classes or their order."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(features, PROJECTED, 1)
        self.body = nn.Sequential(
            nn.Conv2d(PROJECTED + STATE_MAPS, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4),
            nn.ReLU(),
        )
        self.policy = nn.Conv2d(width, COUNT, 1)
        self.value = nn.Conv2d(width, 1, 1)
        self._keep_at_first()

    def _keep_at_first(self) -> None:
        for head in (self.policy, self.value):
            nn.init.zeros_(head.weight)
            if head.bias is not None:
                nn.init.zeros_(head.bias)
        with torch.no_grad():
            if self.policy.bias is not None:
                self.policy.bias[KEEP] = KEEP_BIAS

    def act(self, features: Tensor, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Action scores (B, COUNT, h, w) and values (B, h, w) of the state, from features (B, D, h, w)."""
        state = torch.cat([self.project(features), state_maps(pictures)], 1)
        hidden = self.body(state)
        return self.policy(hidden), self.value(hidden)[:, 0]

    def forward(self, features: Tensor, logits: Tensor, base: Tensor, prior: Tensor) -> tuple[Tensor, Tensor]:
        """One greedy step.

        features (B, D, h, w); logits z_t, base z_0 and prior (B, K, h, w), the prior being the previous frame's refined
        logits, or the base for a first frame. Returns z_{t+1} and the share of cells () whose action was not to keep.
        """
        pictures = Pictures.of(logits, base, prior)
        scores, _ = self.act(features, pictures)
        actions = scores.argmax(1)
        moved = (actions != KEEP).to(logits.dtype).mean()
        return apply_actions(actions, pictures), moved


def state_maps(pictures: Pictures) -> Tensor:
    """What an agent sees of the distributions, blind to which class is which: (B, STATE_MAPS, h, w), each within 0..1.

    Largest and second probability; certainty (sum of squares); agreement (inner product of distributions) with the cell
    to the right, the cell below, the neighbourhood, the prior and the base; the prior's largest probability; how the
    neighbourhood and the prior see the leading class.
    """
    p, near = pictures.logits.softmax(1), pictures.smooth.softmax(1)
    q, p0 = pictures.prior.softmax(1), pictures.base.softmax(1)
    first, second = leaders(pictures.logits)
    maps = [
        (p * first).sum(1),
        (p * second).sum(1),
        (p * p).sum(1),
        F.pad((p[..., :-1] * p[..., 1:]).sum(1), (0, 1)),
        F.pad((p[..., :-1, :] * p[..., 1:, :]).sum(1), (0, 0, 0, 1)),
        (p * near).sum(1),
        (p * q).sum(1),
        (p * p0).sum(1),
        q.amax(1),
        (near * first).sum(1),
        (q * first).sum(1),
    ]
    return torch.stack(maps, 1)
