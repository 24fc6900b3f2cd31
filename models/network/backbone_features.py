"""Feature maps, input normalization and early layers of an image backbone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import open_clip
from timm.models import group_parameters
from torch import nn

from cliprl.engines import UsageError
from cliprl.models.config.config import NetworkConfig
from cliprl.models.network.backbones import model_description, preprocessing
from cliprl.models.network.decoder import FEATURE_STRIDES

# The input convention of the EfficientNet-Lite weights: (RGB - 127) / 128.
LITE = ((127.0,) * 3, (128.0,) * 3)

Colors = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class BackboneStages:
    """The feature maps of a backbone that the decoder reads: their indices, channels, and strides in pixels.

    `fixed` means that the backbone takes one image size only; `blocks` is the depth of a plain transformer, else 0.
    """

    indices: tuple[int, ...]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    fixed: bool
    blocks: int = 0


def backbone_of(clip: Any) -> nn.Module:
    """Return the image backbone, without the projection that open_clip adds to a timm model."""
    trunk: nn.Module = getattr(clip.visual, "trunk", clip.visual)
    return trunk


def stages_of(clip: Any, config: NetworkConfig) -> BackboneStages:
    """The stages of strides 4, 8, 16 and 32, or, where a tower has one stride only, the blocks at quarters of its depth.

    Raises UsageError for a tower that has neither.
    """
    trunk: Any = backbone_of(clip)
    if trunk is clip.visual:
        blocks, patch = len(clip.visual.transformer.resblocks), clip.visual.patch_size[0]
        return _quarters([clip.visual.transformer.width] * blocks, patch, fixed=True)
    maps = list(getattr(trunk, "feature_info", []))
    fixed = hasattr(trunk, "set_input_size")
    channels, strides = [m["num_chs"] for m in maps], [m["reduction"] for m in maps]
    if strides and len(set(strides)) == 1:
        return _quarters(channels, strides[0], fixed)
    last = {stride: index for index, stride in enumerate(strides)}
    if not set(FEATURE_STRIDES) <= set(last):
        raise UsageError(f"network.tower '{config.tower}' has strides {strides}, not {FEATURE_STRIDES}: choose another")
    indices = tuple(last[stride] for stride in FEATURE_STRIDES)
    return BackboneStages(indices, tuple(channels[i] for i in indices), FEATURE_STRIDES, fixed)


def _quarters(channels: list[int], patch: int, fixed: bool) -> BackboneStages:
    count, parts = len(channels), len(FEATURE_STRIDES)
    indices = tuple(max(0, count * (n + 1) // parts - 1) for n in range(parts))
    return BackboneStages(indices, tuple(channels[i] for i in indices), (patch,) * parts, fixed, count)


def fit_size(clip: Any, config: NetworkConfig, stages: BackboneStages) -> None:
    """Prepare a timm tower with positions for the network's height and width; open_clip's own are made for them.

    Raises UsageError for a size that the tower can't take.
    """
    multiple = math.lcm(FEATURE_STRIDES[0], *stages.strides) if stages.blocks else FEATURE_STRIDES[0]
    if config.height % multiple or config.width % multiple:
        raise UsageError(
            f"network.height x width {config.height}x{config.width} are not multiples of the {multiple} pixels "
            f"that '{config.tower}' needs: change them"
        )
    if not stages.fixed or backbone_of(clip) is clip.visual:
        return
    try:
        clip.visual.set_input_size((config.height, config.width))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"network.height x width {config.height}x{config.width} does not suit '{config.tower}' ({error}): change them"
        ) from error


def colors_of(clip: Any, config: NetworkConfig) -> Colors:
    """Mean and deviation of (R, G, B) in 0..255 that the tower's weights were trained with."""
    if config.tower.startswith("tf_efficientnet_lite"):
        return LITE
    tag = open_clip.get_pretrained_cfg(config.tower, config.weights) or preprocessing(config.tower)
    trunk: Any = backbone_of(clip)
    own = trunk.default_cfg if model_description(config.tower) is None else {}
    mean = tag.get("mean") or own.get("mean") or open_clip.OPENAI_DATASET_MEAN
    deviation = tag.get("std") or own.get("std") or open_clip.OPENAI_DATASET_STD
    return tuple(255 * m for m in mean), tuple(255 * d for d in deviation)


def early_parameters(clip: Any, stages: BackboneStages, count: int) -> Iterable[nn.Parameter]:
    """Parameters of the first `count` stages and all before them; a stage of a transformer is a quarter of its blocks."""
    if not count:
        return []
    trunk: Any = backbone_of(clip)
    if trunk is clip.visual:
        visual = clip.visual
        first = [
            visual.conv1,
            visual.ln_pre,
            *visual.transformer.resblocks[: stages.blocks * count // len(FEATURE_STRIDES)],
        ]
        found = [p for module in first for p in module.parameters()]
        return [visual.class_embedding, visual.positional_embedding, *found]
    last = stages.blocks * count // len(FEATURE_STRIDES) if stages.blocks else count
    groups = group_parameters(trunk, trunk.group_matcher(coarse=True))
    return [trunk.get_parameter(name) for group, names in groups.items() if group <= last for name in names]
