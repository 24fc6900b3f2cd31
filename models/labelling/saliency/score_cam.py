"""gScoreCAM: feature maps weighed by what the image keeps of its similarity with a text when it is masked by each."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.models.labelling.saliency.tower_blocks import TowerBlocks


def score_cam(blocks: TowerBlocks, pixels: Tensor, text: Tensor, *, block: int, channels: int, batch: int) -> Tensor:
    """Return a map (h, w), not negative, of one image (1, 3, H, W) for a unit text embedding (E,).

    Of the block's output the `channels` with the largest mean gradient of the similarity are tried: each masks the
    image, and its weight is the similarity gained over the mean of all masks. Masked images are encoded `batch` at a time.
    """
    with torch.enable_grad():
        output, embedding = blocks.output(pixels, block, with_gradient=True)
        (gradient,) = torch.autograd.grad((embedding @ text).sum(), output)
    with torch.no_grad():
        slope = blocks.maps(gradient)[0].mean((1, 2))
        maps = blocks.maps(output.detach())[0]
        chosen = maps[slope.topk(min(channels, len(slope))).indices]
        chosen = _unit_range(chosen)
        masks = F.interpolate(chosen[:, None], pixels.shape[2:], mode="bilinear", align_corners=False)
        scores = torch.cat([_similarity(blocks, pixels * part, text) for part in torch.split(masks, batch)])
        gain = (scores - scores.mean()).clamp(min=0)
        return torch.einsum("k,khw->hw", gain / gain.sum().clamp(min=1e-12), chosen)


def _similarity(blocks: TowerBlocks, pixels: Tensor, text: Tensor) -> Tensor:
    similarity: Tensor = blocks.network.clip.encode_image(pixels, normalize=True) @ text
    return similarity


def _unit_range(maps: Tensor) -> Tensor:
    """Scale each map (K, h, w) to 0..1; a constant one becomes 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)
