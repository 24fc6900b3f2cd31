"""The RL refiner: the cells of the stride-4 grid are agents that share one small convolutional policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliprl.models.config.config import ReinforcementConfig
from cliprl.models.network.actions import CONCEPTS, KEEP, ActionContext, apply_actions, argmax_mask, concept_directions
from cliprl.models.network.network import ClipSegmenter

# Widths of the projected features and of the projected texts.
PROJECTED_FEATURES, PROJECTED_TEXT = 16, 8
# The initial policy prefers KEEP, so that training starts from the base.
KEEP_BIAS = 1.0
STATE_MAPS = 10
# The least variance: the root of 0 has no gradient.
MIN_VARIANCE = 1e-3
# Texts of unit length have small numbers for the policy's first layer.
TEXT_SCALE = 3.0


class RefinerNetwork(nn.Module):
    """Policy and value over per-cell actions, independent of the number and order of the classes.

    Classes enter through their text embeddings: the state has the mean text of a cell, and actions move along `concepts`
    directions among the texts, which `learn_concepts` sets before training. `reach` holds `push` and `bound`.
    """

    def __init__(self, features: int, width: int, embedding: int, concepts: int, reach: ReinforcementConfig) -> None:
        super().__init__()
        self.push, self.bound = reach.push, reach.bound
        self.project = nn.Conv2d(features, PROJECTED_FEATURES, 1)
        self.words = nn.Conv2d(embedding, PROJECTED_TEXT, 1, bias=False)
        self.near = nn.Conv2d(PROJECTED_FEATURES + STATE_MAPS + 3 * PROJECTED_TEXT, width, 3, padding=1)
        self.body = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=2, dilation=2),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=4, dilation=4),
            nn.ReLU(),
        )
        self.scene = nn.Conv2d(2 * PROJECTED_FEATURES, width, 1, bias=False)
        self.policy = nn.Conv2d(width, CONCEPTS + concepts, 1)
        self.value = nn.Conv2d(width, 1, 1)
        # A constant kernel, because the exported network computes none: one row for each action, 0 unless it is a concept.
        self.register_buffer("directions", torch.zeros(CONCEPTS + concepts, embedding, 1, 1))
        self._keep_at_first()

    @classmethod
    def beside(cls, network: ClipSegmenter, width: int, classes: int, reach: ReinforcementConfig) -> RefinerNetwork:
        """Create a refiner of `width` channels for `network`, with one concept for each of the `classes`."""
        features, embedding = network.channels
        return cls(features, width, embedding, classes, reach)

    def _keep_at_first(self) -> None:
        for head in (self.policy, self.value):
            nn.init.zeros_(head.weight)
            if head.bias is not None:
                nn.init.zeros_(head.bias)
        with torch.no_grad():
            if self.policy.bias is not None:
                self.policy.bias[KEEP] = KEEP_BIAS

    def learn_concepts(self, text: Tensor) -> None:
        """Set the concepts from the embeddings (C, E) of the training classes."""
        with torch.no_grad():
            self.get_buffer("directions")[CONCEPTS:, :, 0, 0] = concept_directions(text)

    def pushes(self, text: Tensor) -> Tensor:
        """Return the logits that each action adds to each class, (K, CONCEPTS + C), for class embeddings (K, E)."""
        return self.push * F.conv2d(text[:, :, None, None], self.get_buffer("directions"))[:, :, 0, 0]

    def context(self, logits: Tensor, base: Tensor, prior: Tensor) -> ActionContext:
        """Return the maps for a step from z_t, given z_0 and the prior, each (B, K, h, w)."""
        return ActionContext.of(logits, base, prior, self.bound)

    def act(self, features: Tensor, context: ActionContext, text: Tensor) -> tuple[Tensor, Tensor]:
        """Return action logits (B, A, h, w) and values (B, h, w), from features (B, D, h, w) and texts (K, E)."""
        words = TEXT_SCALE * self.words(text[:, :, None, None])[:, :, 0, 0].T
        texts = [_mean_text(words, z) for z in (context.logits, context.base, context.prior)]
        seen = self.project(features)
        near = self.near(torch.cat([seen, state_maps(context), *texts], 1))
        hidden = self.body(near + self.scene(mean_and_deviation(seen)))
        return self.policy(hidden), self.value(hidden)[:, 0]

    def forward(
        self, features: Tensor, logits: Tensor, base: Tensor, prior: Tensor, text: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Take one greedy step.

        features (B, D, h, w); logits z_t, base z_0 and prior (B, K, h, w), the prior being the previous frame's refined
        logits, or the base for a first frame; text (K, E), the classes' embeddings. Returns z_{t+1} and the share of cells
        () whose label changed: an action that changes no label is no reason for a further step.
        """
        context = self.context(logits, base, prior)
        scores, _ = self.act(features, context, text)
        refined = apply_actions(scores.argmax(1), context, self.pushes(text))
        changed = refined.argmax(1) != logits.argmax(1)
        return refined, changed.to(logits.dtype).mean()


def mean_and_deviation(maps: Tensor) -> Tensor:
    """Return mean and standard deviation of each map (B, C, h, w) over the image, (B, 2C, 1, 1).

    They carry global degradations such as darkness and noise, which a local neighborhood hardly shows.
    """
    mean = maps.mean((2, 3), keepdim=True)
    return torch.cat([mean, ((maps - mean).square().mean((2, 3), keepdim=True) + MIN_VARIANCE).sqrt()], 1)


def _mean_text(words: Tensor, logits: Tensor) -> Tensor:
    """Return the mean of the class texts (WORDS, K) of each cell, weighted by probability: (B, WORDS, h, w)."""
    mean = torch.matmul(words, logits.softmax(1).flatten(2))
    return mean.view(len(logits), PROJECTED_TEXT, *logits.shape[2:])


def state_maps(context: ActionContext) -> Tensor:
    """Return class-independent maps of the distributions: (B, STATE_MAPS, h, w), each within 0..1.

    Largest probability; certainty (sum of squares); agreement (inner product of distributions) with the cell to the right,
    the cell below, the neighborhood, the prior and the base; the prior's largest probability; how the neighborhood and
    the prior see the leading class.
    """
    p, near = context.logits.softmax(1), context.smooth.softmax(1)
    q, p0 = context.prior.softmax(1), context.base.softmax(1)
    first = argmax_mask(context.logits)
    maps = [
        p.amax(1),
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
