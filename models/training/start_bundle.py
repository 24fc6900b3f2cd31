"""The base of a bundle as a torch network, so that a training can start from a bundle alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cliprl.engines import Bundle, TextEngine, UsageError, compile_engine
from cliprl.engines.bundle.bundle import ENCODER, TEXT
from cliprl.models.config.config import NetworkConfig
from cliprl.models.export.onnx_weights import FOLDED, fill_normalizations, read_weights, used_weights
from cliprl.models.export.probe_images import probe_images
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.text import class_embeddings

# The settings that decide the shapes of a base's weights; the sizes of its images and the number of its classes do not.
SHAPES = ("tower", "embedding", "decoder", "pyramid", "features", "text_width", "text_layers", "context")
# The largest difference of the network's outputs to those of the bundle's files, as a share of the largest output above 1.
TOLERANCE = 1e-3


def bundle_weights(bundle: Bundle, config: NetworkConfig) -> dict[str, Tensor]:
    """Return the weights of a network of `config` that computes what the bundle's encoder and text network do.

    What neither file holds, such as the projection of whole images, is as in a new network. Raises UsageError if the network
    is another than the bundle's.
    """
    start, manifest = f"network.start '{config.start}'", bundle.manifest
    if manifest.text is None:
        raise UsageError(f"{start} is a bundle without a text network: give the folder of the run that made it")
    refuse_other_shapes(start, manifest.training.get("recipe", {}).get("network", {}), config)
    network = ClipSegmenter(replace(config, height=manifest.height, width=manifest.width, start="")).eval()
    found = read_weights(bundle.encoder) | read_weights(bundle.path / TEXT)
    own = network.state_dict()
    for name in own.keys() & found.keys():
        if own[name].shape != found[name].shape:
            raise UsageError(
                f"{start} does not fit the network: {name} is {tuple(found[name].shape)}, the network's is "
                f"{tuple(own[name].shape)}: set the network section as in the recipe of that bundle"
            )
        own[name].copy_(found[name])
    if "scale" in found:
        network.log_scale.data.fill_(math.log(float(found["scale"]) * math.sqrt(network.channels[1])))
    images, text = torch.from_numpy(probe_images(manifest.height, manifest.width)), torch.from_numpy(bundle.embeddings)
    folded = {name: values for name, values in found.items() if name.endswith(f".weight{FOLDED}")}
    filled = fill_normalizations(network, folded, images, text) | found.keys() | {"log_scale"}
    _check_agreement(network, bundle, images, start)
    network.requires_grad_(True)
    outputs = [*network(images[:1], text)[:2], class_embeddings(network, manifest.classes)]
    if missing := sorted(used_weights(network, outputs) - filled):
        raise UsageError(
            f"{start} can't be read back: its ONNX files do not hold {missing[0]}: give the folder of the run that made it"
        )
    return network.state_dict()


def refuse_other_shapes(start: str, trained: Mapping[str, Any], config: NetworkConfig) -> None:
    """Raise UsageError if `start` was trained with settings that give weights of other shapes than `config` does."""
    wanted = asdict(config)
    changed = [key for key in SHAPES if trained.get(key, wanted[key]) not in (wanted[key], Path(str(wanted[key])).name)]
    if changed:
        changes = ", ".join(f"network.{key}={trained[key]}, here {wanted[key]}" for key in changed)
        raise UsageError(f"{start} was trained with {changes}: set that in the recipe, or start from another")


@torch.no_grad()
def _check_agreement(network: ClipSegmenter, bundle: Bundle, images: Tensor, start: str) -> None:
    """Raise UsageError where the network's outputs are not those of the bundle's files."""
    classes, text = bundle.manifest.classes, torch.from_numpy(bundle.embeddings)
    shapes = {"image": tuple(images.shape), "text": tuple(text.shape)}
    encoder = compile_engine(bundle.encoder, precision="f32", shapes=shapes)
    expected = encoder.run({"image": images.numpy(), "text": bundle.embeddings})
    embed = TextEngine(bundle).embed_class
    pairs = {
        f"features of {ENCODER}": (network(images, text)[0], expected["features"]),
        f"logits of {ENCODER}": (network(images, text)[1], expected["logits"]),
        f"embeddings of {TEXT}": (class_embeddings(network, classes), np.stack([embed(spec) for spec in classes])),
    }
    for name, (own, values) in pairs.items():
        wrong = float(np.abs(own.numpy() - values).max()) / max(1.0, float(np.abs(values).max()))
        if not wrong <= TOLERANCE:
            raise UsageError(
                f"{start} can't be read back: the {name} differ by {wrong:.2g}, not at most {TOLERANCE:g}: give the folder of "
                "the run that made it"
            )
