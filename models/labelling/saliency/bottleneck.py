"""M2IB: the parts of a block's output that an image needs for its similarity with a text, found by an information bottleneck."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cliprl.models.labelling.saliency.tower_blocks import TowerBlocks

# The bottleneck starts almost open: the sigmoid of this is the share that passes.
OPEN = 5.0
LEARNING_RATE = 1.0
# Least deviation of a channel, as a share of the mean one: a constant channel holds no information.
LEAST_DEVIATION = 1e-3


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """The result: information (h, w) in bits that passes at each place, its mean over all tokens, and the similarity."""

    information: Tensor
    mean_information: float
    similarity: float


@torch.enable_grad()
def fit_bottleneck(
    blocks: TowerBlocks, pixels: Tensor, text: Tensor, *, block: int, beta: float, steps: int, samples: int, seed: int
) -> Bottleneck:
    """Optimize the bottleneck of one image (1, 3, H, W) and a unit text embedding (E,) in `steps` steps of Adam.

    After the block, each token r is replaced by a mixture of itself and of noise with the mean and deviation of its channel:
    z = p r + (1 - p) noise. The loss is beta times the information that z has of r, less the similarity of image and text;
    the noise is drawn `samples` times in each step. A larger `beta` lets less information through.
    """
    with torch.no_grad():
        output, _ = blocks.output(pixels, block)
    tokens = output.flatten(2).transpose(1, 2) if blocks.grid is None else output
    mean, deviation = tokens.mean(1, keepdim=True), tokens.std(1, keepdim=True)
    deviation = deviation.clamp(min=float(LEAST_DEVIATION * deviation.mean()) + 1e-12)
    standard = (tokens - mean) / deviation
    openness = torch.full((1, tokens.shape[1], 1), OPEN, device=tokens.device, requires_grad=True)
    optimizer = torch.optim.Adam([openness], lr=LEARNING_RATE)
    generator = torch.Generator(tokens.device).manual_seed(seed)
    similarity = torch.zeros(())
    for _ in range(steps):
        share = openness.sigmoid()
        noise = torch.randn((samples, *standard.shape[1:]), generator=generator, device=tokens.device)
        changed = (share * standard + (1 - share) * noise) * deviation + mean
        if blocks.grid is None:
            changed = changed.transpose(1, 2).reshape(samples, *output.shape[1:])
        similarity = (blocks.resume(pixels, block, changed) @ text).mean()
        loss = beta * _information(openness, standard).mean() - similarity
        (openness.grad,) = torch.autograd.grad(loss, openness)
        optimizer.step()
    with torch.no_grad():
        bits = _information(openness, standard)
    cells = bits[0] if blocks.grid is None else bits[0, blocks.prefix :]
    return Bottleneck(cells.reshape(blocks.grid or output.shape[2:]), float(bits.mean()), float(similarity.detach()))


def _information(openness: Tensor, standard: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence (1, tokens) of a token's mixture from pure noise, in bits, mean over channels."""
    share = openness.sigmoid()
    # log(1 - sigmoid(x)) = logsigmoid(-x), which does not overflow.
    log_variance = 2 * torch.nn.functional.logsigmoid(-openness)
    nats = 0.5 * ((share * standard).square() + log_variance.exp() - log_variance - 1)
    return nats.mean(2) / torch.log(torch.tensor(2.0))
