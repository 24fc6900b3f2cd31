"""The light decoder: from a backbone's stages to pixel features at stride 4."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from cliprl.models.config.config import NetworkConfig

# Strides of the pyramid, in input pixels a cell.
FEATURE_STRIDES = (4, 8, 16, 32)


def make_decoder(
    config: NetworkConfig, channels: Sequence[int], strides: Sequence[int]
) -> PyramidDecoder | FusedDecoder:
    """Return the decoder that `config` names, for stages of these channels and strides."""
    if config.decoder == "fused":
        return FusedDecoder(channels, strides, config.pyramid, config.features)
    return PyramidDecoder(channels, strides, config.pyramid, config.features)


class PyramidDecoder(nn.Module):
    """A feature pyramid, summed top down to stride 4.

    A convolutional tower's stages have the pyramid's strides already. The patch tokens of a transformer, of four depths
    and one stride, are brought to them by transposed and strided convolutions (the simple feature pyramid of ViTDet,
    Li et al. 2022, on several depths instead of the last).
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], pyramid: int, features: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, pyramid, 1) for c in channels)
        self.shift = nn.ModuleList(_shift(pyramid, *pair) for pair in zip(strides, FEATURE_STRIDES, strict=True))
        self.smooth = nn.ModuleList(_separable(pyramid) for _ in channels)
        self.out = nn.Sequential(nn.Conv2d(pyramid, features, 3, padding=1), nn.ReLU())

    def forward(self, stages: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Stages (B, C_i, h_i, w_i) of an image of `size` (height, width) to features (B, D, height/4, width/4)."""
        parts = list(zip(self.lateral, self.shift, self.smooth, stages, FEATURE_STRIDES, strict=True))
        top: Tensor | None = None
        for lateral, shift, smooth, stage, stride in reversed(parts):
            joined = _fit(shift(lateral(stage)), -(-size[0] // stride), -(-size[1] // stride))
            if top is not None:
                joined = joined + _doubled(top, joined)
            top = smooth(joined)
        features: Tensor = self.out(top)
        return features


class FusedDecoder(nn.Module):
    """A feature pyramid with full convolutions, all of whose levels are summed at stride 4.

    As Semantic FPN (Kirillov et al. 2019), with batch normalization, which an export folds into the convolutions.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], pyramid: int, features: int) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(_normalized(c, pyramid, 1) for c in channels)
        self.shift = nn.ModuleList(_shift(pyramid, *pair) for pair in zip(strides, FEATURE_STRIDES, strict=True))
        self.smooth = nn.ModuleList(_normalized(pyramid, pyramid, 3) for _ in channels)
        self.fuse = nn.ModuleList(nn.Conv2d(pyramid, pyramid, 1, bias=False) for _ in channels)
        self.out = nn.Sequential(nn.BatchNorm2d(pyramid), nn.ReLU(), *_normalized(pyramid, features, 3))

    def forward(self, stages: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Return the features (B, D, height/4, width/4) of stages as in `PyramidDecoder`."""
        parts = list(zip(self.lateral, self.shift, self.smooth, self.fuse, stages, FEATURE_STRIDES, strict=True))
        top: Tensor | None = None
        fused: Tensor | None = None
        for lateral, shift, smooth, fuse, stage, stride in reversed(parts):
            joined = _fit(shift(lateral(stage)), -(-size[0] // stride), -(-size[1] // stride))
            top = smooth(joined if top is None else joined + _doubled(top, joined))
            fused = fuse(top) if fused is None else fuse(top) + _doubled(fused, joined, "bilinear")
        features: Tensor = self.out(fused)
        return features


def _normalized(width: int, out: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, out, size, padding=size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU())


def _fit(maps: Tensor, height: int, width: int) -> Tensor:
    """Patches of 14 pixels, doubled or halved, are not of the pyramid's strides: 3.5 to 4, 28 to 32."""
    if maps.shape[2:] == (height, width):
        return maps
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)


def _doubled(top: Tensor, joined: Tensor, mode: str = "nearest") -> Tensor:
    if top.shape[2] * 2 == joined.shape[2] and top.shape[3] * 2 == joined.shape[3]:
        return F.interpolate(top, scale_factor=2.0, mode=mode)
    return F.interpolate(top, joined.shape[2:], mode=mode)


def _shift(width: int, stride: float, target: int) -> nn.Module:
    """Maps of one stride to about another; what is left of the way is the smaller part, for `_fit`."""
    steps: list[nn.Module] = []
    while stride / target >= 1.5:
        steps += [nn.ConvTranspose2d(width, width, 2, 2), nn.GELU()]
        stride /= 2
    while target / stride >= 1.5:
        steps += [nn.Conv2d(width, width, 3, 2, padding=1), nn.GELU()]
        stride *= 2
    return nn.Sequential(*steps)


def _separable(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1), nn.ReLU())
