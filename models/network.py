"""The CLIP-RL base network: a CLIP whose image tower also answers for every pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn
from torch.nn import functional as F

from cliprl.models.config import NetworkConfig
from cliprl.models.tower import load_tower

# (RGB - 127) / 128: the input convention of the EfficientNet-Lite weights.
MEAN, SCALE = 127.0, 128.0
# Strides 4, 8, 16, 32 among the tower's stages.
STAGES = (1, 2, 3, 4)
# Large enough to exist in FP16.
EPSILON = 1e-3
VOCABULARY = 49408


class Decoder(nn.Module):
    """A light feature pyramid: the tower's stages, summed top down to stride 4."""

    def __init__(self, channels: Sequence[int], pyramid: int, features: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, pyramid, 1) for c in channels)
        self.smooth = nn.ModuleList(_separable(pyramid) for _ in channels)
        self.out = nn.Sequential(nn.Conv2d(pyramid, features, 3, padding=1), nn.ReLU())

    def forward(self, stages: Sequence[Tensor]) -> Tensor:
        """Stages of falling resolution (B, C_i, h_i, w_i) to features (B, D, h_0, w_0)."""
        top: Tensor | None = None
        for lateral, smooth, stage in reversed(list(zip(self.lateral, self.smooth, stages, strict=True))):
            joined = lateral(stage)
            if top is not None:
                joined = joined + F.interpolate(top, scale_factor=2.0, mode="nearest")
            top = smooth(joined)
        features: Tensor = self.out(top)
        return features


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU())


class ClipSegmenter(nn.Module):
    """Image and class texts in, pixel features and class logits out. It has no weight for any class: a class is its text."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.context = config.context
        self.frozen_stages = config.frozen_stages
        self.clip = _clip(config)
        trunk = self.clip.visual.trunk
        load_tower(trunk, config.weights)
        channels = [trunk.feature_info[i]["num_chs"] for i in STAGES]
        self.decoder = Decoder(channels, config.pyramid, config.features)
        self.embed = nn.Conv2d(config.features, config.embedding, 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self._freeze()

    def _freeze(self) -> None:
        """The first stages keep their ImageNet weights: general filters that a few thousand pictures would only narrow."""
        trunk = self.clip.visual.trunk
        early = [trunk.conv_stem, trunk.bn1, *list(trunk.blocks)[: self.frozen_stages]] if self.frozen_stages else []
        for module in early:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> ClipSegmenter:
        """As usual, but the tower's batch statistics stay ImageNet's: those of rendered scenes would not fit real ones."""
        super().train(mode)
        self.clip.visual.trunk.eval()
        return self

    def encode_image(self, image: Tensor) -> Tensor:
        """Whole-image embeddings (B, E) of unit length, of uint8 images (B, H, W, 3)."""
        embeddings: Tensor = self.clip.encode_image(normalise(image), normalize=True)
        return embeddings

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text embeddings (n, E) of unit length, of tokens int64 (n, context)."""
        embeddings: Tensor = self.clip.encode_text(tokens, normalize=True)
        return embeddings

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, H, W, 3) RGB and texts (K, E) to features (B, D, H/4, W/4) and logits (B, K, H/4, W/4)."""
        stages = self.clip.visual.trunk.forward_intermediates(
            normalise(image), indices=list(STAGES), intermediates_only=True
        )
        features = self.decoder(stages)
        pixels = self.embed(features)
        pixels = pixels * torch.rsqrt(pixels.square().mean(1, keepdim=True) + EPSILON)
        scale = self.log_scale.exp() / math.sqrt(pixels.shape[1])
        kernel = (text * scale)[:, :, None, None]
        return features, F.conv2d(pixels, kernel)


def normalise(image: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W), about -1..1. Cast first: TensorRT takes a uint8 input only into a Cast."""
    return (image.to(torch.float32).permute(0, 3, 1, 2) - MEAN) / SCALE


def _clip(config: NetworkConfig) -> Any:
    vision = CLIPVisionCfg(
        timm_model_name=config.tower, timm_pool="avg", timm_proj="linear", image_size=(config.height, config.width)
    )
    text = CLIPTextCfg(
        context_length=config.context,
        vocab_size=VOCABULARY,
        width=config.text_width,
        heads=max(1, config.text_width // 32),
        layers=config.text_layers,
    )
    return CLIP(config.embedding, vision, text)
