"""The CLIP-RL base network: a CLIP whose image encoder also has dense features."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cliprl.models.config.config import NetworkConfig
from cliprl.models.network.backbone_features import backbone_of, colors_of, early_parameters, fit_size, stages_of
from cliprl.models.network.backbones import make_clip_module, model_description, usable
from cliprl.models.network.decoder import make_decoder
from cliprl.models.network.tokenizer import text_tokenizer
from cliprl.models.network.weights import load_weights

# Large enough to exist in FP16.
EPSILON = 1e-3
# Tokens of a text where the model's description does not state them: CLIP's number.
CLIP_CONTEXT = 77


class ClipSegmenter(nn.Module):
    """Computes pixel features and class logits of an image from the text embeddings of the classes, without class weights.

    `context` is the number of tokens of a text, and `tokenizer` makes them.
    `pretrained` means that both encoders started from a CLIP checkpoint.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.size = (config.height, config.width)
        self.clip = make_clip_module(config)
        text = (model_description(config.tower) or {}).get("text_cfg", {})
        # The positions of a text encoder of transformers are its limit, 512, not the length that CLIP was trained with.
        self.context = int(text.get("context_length") or min(self.clip.context_length, CLIP_CONTEXT))
        self.tokenizer = text_tokenizer(text, self.context)
        self.pretrained = load_weights(self.clip, config)
        self.stages = stages_of(self.clip, config)
        fit_size(self.clip, config, self.stages)
        self.decoder = make_decoder(config, self.stages.channels, self.stages.strides)
        with usable(config.tower):
            self.embed = nn.Conv2d(config.features, self._embedding(), 1)
        # The scale of a CLIP checkpoint suits its text embeddings, whose angles are small.
        scale = self.clip.logit_scale.detach().clone().reshape(()) if self.pretrained else torch.tensor(math.log(10.0))
        self.log_scale = nn.Parameter(scale)
        for name, values in zip(("mean", "deviation"), colors_of(self.clip, config), strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)
        for parameter in early_parameters(self.clip, self.stages, config.frozen_stages):
            parameter.requires_grad_(False)

    def _embedding(self) -> int:
        with torch.no_grad():
            return int(self.clip.encode_text(self.tokenize([""])).shape[1])

    @property
    def tower(self) -> nn.Module:
        """Return the image backbone."""
        return backbone_of(self.clip)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Return the parameters for the lower learning rate: the backbone, and the text encoder of a CLIP checkpoint."""
        return list((self.clip if self.pretrained else self.tower).parameters())

    @property
    def channels(self) -> tuple[int, int]:
        """Return the number of features D of a cell and the width E of a text embedding."""
        return self.embed.in_channels, self.embed.out_channels

    def train(self, mode: bool = True) -> ClipSegmenter:
        """Set the mode, but keep the backbone's batch statistics: those of rendered scenes do not fit real ones."""
        super().train(mode)
        self.tower.eval()
        return self

    def normalize(self, image: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) to float32 (B, 3, H, W), about -1..1.

        Cast first: TensorRT takes a uint8 input only into a Cast.
        """
        return (image.to(torch.float32).permute(0, 3, 1, 2) - self.mean) / self.deviation

    def encode_image(self, image: Tensor) -> Tensor:
        """Whole-image embeddings (B, E) of unit length, of uint8 images (B, H, W, 3).

        A transformer has positions for one size: images of another are scaled to it.
        """
        pixels = self.normalize(image)
        if self.stages.fixed and pixels.shape[2:] != self.size:
            pixels = F.interpolate(pixels, self.size, mode="bilinear", align_corners=False)
        embeddings: Tensor = self.clip.encode_image(pixels, normalize=True)
        return embeddings

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return tokens int64 (n, context) of texts; longer ones are truncated."""
        tokens: Tensor = self.tokenizer(list(texts))
        return tokens

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text embeddings (n, E) of unit length, of tokens int64 (n, context)."""
        embeddings: Tensor = self.clip.encode_text(tokens.to(self.log_scale.device), normalize=True)
        return embeddings

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, H, W, 3) RGB and texts (K, E) to features (B, D, H/4, W/4) and logits (B, K, H/4, W/4)."""
        maps = self.clip.visual.forward_intermediates(
            self.normalize(image), indices=list(self.stages.indices), intermediates_only=True
        )["image_intermediates"]
        features = self.decoder(maps, (image.shape[1], image.shape[2]))
        pixels = self.embed(features)
        pixels = pixels * torch.rsqrt(pixels.square().mean(1, keepdim=True) + EPSILON)
        scale = self.log_scale.exp() / math.sqrt(pixels.shape[1])
        kernel = (text * scale)[:, :, None, None]
        return features, F.conv2d(pixels, kernel)
