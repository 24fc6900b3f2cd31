"""Start a training from the base of an earlier run, or of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cliprl.engines import Bundle, UsageError, open_bundle
from cliprl.engines.bundle.bundle import ENCODER, SHIPPED, file_hash
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.models.config.config import NetworkConfig
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.network.weights import first_misfit
from cliprl.models.training.checkpoint import read_checkpoint
from cliprl.models.training.start_bundle import bundle_weights, refuse_other_shapes

# The checkpoint of a base, written by the supervised stage.
BASE_FILE = "supervised.pt"


def start_network(config: NetworkConfig) -> ClipSegmenter:
    """Return a new network with the weights that `config` names; see `NetworkConfig`.

    Raises UsageError where `config.start` holds no base, or one of another network.
    """
    network = ClipSegmenter(config)
    if config.start:
        base = find_base(config.start)
        _fill(network, base, config)
    return network


def find_base(start: str) -> Path | Bundle:
    """Return the base that `network.start` names: a checkpoint, that of a run's folder, or a bundle by folder or name.

    For the bundle of a run it is the run's checkpoint, which holds more. Raises UsageError for another place.
    """
    place = Path(start)
    if place.is_file():
        return place
    if (place / BASE_FILE).is_file():
        return place / BASE_FILE
    if (place / MANIFEST).is_file() and (place.parent / BASE_FILE).is_file():
        return place.parent / BASE_FILE
    if (place / MANIFEST).is_file() or (SHIPPED / start / MANIFEST).is_file():
        return open_bundle(start)
    raise UsageError(
        f"network.start '{start}' holds no {BASE_FILE}: give the folder of an earlier run (--out), such a file, or a bundle"
    )


def describe_base(config: NetworkConfig) -> str | None:
    """Describe the base that the training started from for the manifest, by its hash, not its path; None without one."""
    if not config.start:
        return None
    base = find_base(config.start)
    if isinstance(base, Bundle):
        return f"the base of bundle {base.manifest.name}, {ENCODER}, SHA-256 {base.manifest.hashes[ENCODER]}"
    return f"the base of an earlier run, {base.name}, SHA-256 {file_hash(base)}"


def _fill(network: ClipSegmenter, base: Path | Bundle, config: NetworkConfig) -> None:
    """Copy the weights of a base. Raises UsageError if they do not fit."""
    name = base.path if isinstance(base, Bundle) else base
    weights = bundle_weights(base, config) if isinstance(base, Bundle) else _checkpoint_weights(base, config)
    if fault := first_misfit(weights, network.state_dict()):
        raise UsageError(
            f"network.start '{name}' does not fit the network: {fault}: set the network section as in the recipe of that run"
        )
    network.load_state_dict(weights)


def _checkpoint_weights(path: Path, config: NetworkConfig) -> Mapping[str, Tensor]:
    """Return the weights of a checkpoint, averaged ones if it has any."""
    state: Mapping[str, Any] = read_checkpoint(path, "give network.start another run")
    if "network" not in state:
        raise UsageError(f"network.start '{path}' is no checkpoint of a base: give the {BASE_FILE} of a run")
    settings = {key.removeprefix("network."): value for key, value in state.get("settings", {}).items()}
    refuse_other_shapes(f"network.start '{path}'", settings, config)
    return {**state["network"], **state.get("average", {})}
