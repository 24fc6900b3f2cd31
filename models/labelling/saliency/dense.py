"""Dense similarity of an untrained CLIP: each patch of the last layer against a text, without training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cliprl.engines import UsageError
from cliprl.models.labelling.saliency.tower_blocks import TowerBlocks


def dense_embeddings(blocks: TowerBlocks, pixels: Tensor) -> Tensor:
    """Return unit embeddings (h, w, E) of the patches of one image (1, 3, H, W), in the space of the texts.

    A ViT's last layer attends with its queries to its queries and with its keys to its keys, so that patches that are
    alike exchange values (SCLIP); its residual path and its perceptron are left out (ClearCLIP). A convolutional
    backbone's last maps are put through its head place by place.
    """
    clip, trunk = blocks.network.clip, blocks.network.tower
    last = len(blocks.blocks) - 1
    with torch.no_grad():
        if blocks.grid is None:
            maps: Tensor = trunk.forward_features(pixels)  # type: ignore[operator]
            cells = maps[0].flatten(1).t()[:, :, None, None]
            embeddings, grid = clip.visual.head(_head(trunk)(cells)), (maps.shape[2], maps.shape[3])
        else:
            before, _ = blocks.output(pixels, last - 1)
            tokens = _correlate(blocks.blocks[last], before)[0, blocks.prefix :]
            embeddings, grid = _project(clip, trunk, tokens), blocks.grid
        return F.normalize(embeddings, dim=-1).reshape(*grid, -1)


def _correlate(block: Any, tokens: Tensor) -> Tensor:
    """Return the output (1, N, C) of a block's attention where queries meet queries and keys meet keys."""
    attention = block.attn
    if isinstance(attention, torch.nn.MultiheadAttention):
        joined = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
        heads, out = attention.num_heads, attention.out_proj
    elif hasattr(attention, "qkv") and hasattr(attention, "proj"):
        joined, heads, out = attention.qkv(block.norm1(tokens)), attention.num_heads, attention.proj
    else:
        raise UsageError(
            f"the attention {type(attention).__name__} of this backbone is not known: choose the saliency m2ib or gscorecam"
        )
    query, key, value = joined.reshape(*joined.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    scale = query.shape[-1] ** -0.5
    weights = sum((each @ each.transpose(-2, -1) * scale).softmax(-1) for each in (query, key))
    mixed: Tensor = out((weights @ value / 2).transpose(1, 2).flatten(2))
    return mixed


def _project(clip: Any, trunk: Any, tokens: Tensor) -> Tensor:
    """Bring tokens (N, C) to the space of the texts, each as if it were the pooled one."""
    if trunk is clip.visual:
        tokens = trunk.ln_post(tokens)
        return tokens @ trunk.proj if trunk.proj is not None else tokens
    # A sequence of one token: every pooling, attention included, returns what it makes of that token.
    alone = trunk.norm(tokens)[:, None]
    pooled = trunk.attn_pool(alone) if getattr(trunk, "attn_pool", None) is not None else alone[:, 0]
    projected: Tensor = clip.visual.head(trunk.fc_norm(pooled))
    return projected


def _head(trunk: Any) -> Any:
    """Return the function that pools maps and ends before the classifier."""
    return lambda maps: trunk.forward_head(maps, pre_logits=True)
