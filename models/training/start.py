"""Start a training from the base that an earlier run trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cliprl.engines import UsageError
from cliprl.engines.bundle.bundle import file_hash
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.models.config.config import NetworkConfig
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.weights import first_misfit
from cliprl.models.training.checkpoint import read_checkpoint

# The checkpoint of a base, written by the supervised stage.
BASE_FILE = "supervised.pt"
# The settings that decide the shapes of a base's weights; the sizes of its images and the number of its classes do not.
SHAPES = ("tower", "embedding", "decoder", "pyramid", "features", "text_width", "text_layers", "context")


def start_network(config: NetworkConfig) -> ClipSegmenter:
    """Return a new network with the weights that `config` names; see `NetworkConfig`.

    Raises UsageError where `config.start` holds no checkpoint of a base, or one of another network.
    """
    network = ClipSegmenter(config)
    if config.start:
        path = base_path(config.start)
        _fill(network, read_checkpoint(path, "give network.start another run"), path, config)
    return network


def base_path(start: str) -> Path:
    """Return the checkpoint that `network.start` names: a file, or one in a run's folder. Raises UsageError for another place."""
    place = Path(start)
    if place.is_file():
        return place
    if (place / BASE_FILE).is_file():
        return place / BASE_FILE
    if (place / MANIFEST).is_file() and (place.parent / BASE_FILE).is_file():
        return place.parent / BASE_FILE
    if (place / MANIFEST).is_file():
        raise UsageError(
            f"network.start '{start}' is a bundle without the checkpoints of its training: give the folder of the run that "
            f"holds {BASE_FILE}, or tune the bundle with cliprl-train tune"
        )
    raise UsageError(
        f"network.start '{start}' holds no {BASE_FILE}: give the folder of an earlier run (--out), or such a file"
    )


def describe_base(config: NetworkConfig) -> str | None:
    """Describe the base that the training started from for the manifest, by its hash, not its path; None without one."""
    if not config.start:
        return None
    path = base_path(config.start)
    return f"the base of an earlier run, {path.name}, SHA-256 {file_hash(path)}"


def _fill(network: ClipSegmenter, state: Mapping[str, Any], path: Path, config: NetworkConfig) -> None:
    """Copy the weights of a checkpoint, averaged ones if it has any. Raises UsageError if they do not fit."""
    if "network" not in state:
        raise UsageError(f"network.start '{path}' is no checkpoint of a base: give the {BASE_FILE} of a run")
    was, now = state.get("settings", {}), asdict(config)
    changed = [key for key in SHAPES if was.get(f"network.{key}", now[key]) != now[key]]
    if changed:
        changes = ", ".join(f"network.{key}={was[f'network.{key}']}, here {now[key]}" for key in changed)
        raise UsageError(
            f"network.start '{path}' was trained with {changes}: set that in the recipe, or start from another"
        )
    weights: dict[str, torch.Tensor] = {**state["network"], **state.get("average", {})}
    if fault := first_misfit(weights, network.state_dict()):
        raise UsageError(
            f"network.start '{path}' does not fit the network: {fault}: set the network section as in the recipe of that run"
        )
    network.load_state_dict(weights)
