"""The promptable head: a small U-Net on features, image, prompts and the present mask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as F

from cliprl.engines.promptable.hints import HINTS
from cliprl.engines.promptable.prompt_maps import CHANNELS

# Channels at the grid of the features, at half and at a quarter of its resolution.
_WIDTHS = (32, 40, 48)
# Logits of the present mask are clipped to this absolute value.
LOGIT_LIMIT = 6.0


class PromptHead(nn.Module):
    """Corrects the logits of a mask. `features` is the number of channels of the bundle's features, `stride` that of its grid."""

    def __init__(self, features: int, stride: int) -> None:
        super().__init__()
        self.unshuffle = max(stride // 2, 1)
        colors = 3 * 4 if stride > 1 else 3
        fine, middle, coarse = _WIDTHS
        self.features = nn.BatchNorm2d(features)
        self.stem = nn.Conv2d(features + colors + CHANNELS + 2 + HINTS, fine, 1)
        self.fine = _block(fine, fine)
        self.middle = nn.Sequential(_block(fine, middle, 2), _block(middle, middle))
        self.coarse = nn.Sequential(_block(middle, coarse, 2), _block(coarse, coarse))
        self.up_middle, self.up_fine = nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)
        self.join_middle, self.join_fine = _block(middle, middle), _block(fine, fine)
        self.out = nn.Conv2d(fine, 1, 1)

    def forward(self, features: Tensor, image: Tensor, prompts: Tensor, logits: Tensor, hints: Tensor) -> Tensor:
        """Return the corrected logits (B, 1, h, w).

        features (B, D, h, w); image uint8 (B, H, W, 3) RGB; prompts (B, CHANNELS, h, w), see `prompt_maps`; logits
        (B, 1, h, w) of the present mask, 0 everywhere if there is none; hints (B, HINTS, h, w), see `hint_maps`.
        """
        colors = image.permute(0, 3, 1, 2).float() / 128 - 1
        small = F.avg_pool2d(colors, self.unshuffle) if self.unshuffle > 1 else colors
        if small.shape[-1] > features.shape[-1]:
            small = F.pixel_unshuffle(small, 2)
        present = logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
        parts = [self.features(features), small, prompts, present / LOGIT_LIMIT, torch.tanh(2 * present), hints]
        fine = self.fine(F.relu(self.stem(torch.cat(parts, 1))))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.join_middle(middle + self.up_middle(_resized(coarse, middle)))
        fine = self.join_fine(fine + self.up_fine(_resized(middle, fine)))
        corrected: Tensor = present + self.out(fine)
        return corrected


def repeat_head(head: PromptHead, path: Path, inputs: Sequence[Tensor]) -> None:
    """Give `head` the weights of an exported head, so that both give the same masks.

    Inputs that the exported one lacks have no effect. The export folded the batch normalizations into the convolutions; here
    they have the statistics of `inputs`, and undo them.
    """
    stored = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in onnx.load(path).graph.initializer}
    for name, target in [*head.named_parameters(), *head.named_buffers()]:
        if name in stored:
            target.data.zero_()
            target.data[tuple(slice(size) for size in stored[name].shape)] = stored[name].float()

    def undo(norm: nn.Module, cells: tuple[Tensor], bias: Tensor) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        variance, mean = torch.var_mean(cells[0], (0, 2, 3), correction=0)
        norm.running_mean, norm.running_var = mean, variance
        norm.weight.data, norm.bias.data = (variance + norm.eps).sqrt(), mean + bias

    hooks = []
    for name, norm in head.named_modules():
        if name.endswith(".1") and isinstance(norm, nn.BatchNorm2d):
            bias = stored[f"{name[:-1]}0.weight_bias"].float()
            hooks.append(norm.register_forward_pre_hook(partial(undo, bias=bias)))
    with torch.no_grad():
        head.eval()(*inputs)
    for hook in hooks:
        hook.remove()


def _resized(cells: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(cells, like.shape[-2:], mode="bilinear", align_corners=False)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
