"""Open the network that makes saliency maps: a bundle, a training run, or a CLIP checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cliprl.engines import CliprlError, UsageError, open_bundle, reason_of
from cliprl.engines.bundle.bundle import SHIPPED
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.models.config.config import NetworkConfig
from cliprl.models.labelling.saliency.bundle_logits import BundleLogits
from cliprl.models.network.network import ClipSegmenter
from cliprl.models.training.checkpoint import read_checkpoint

FORMS = "a bundle, the folder of a training run, or clip:TOWER,WEIGHTS[,HEIGHTxWIDTH]"
# Checkpoints of a run whose decoder is trained, the best first.
CHECKPOINTS = ("supervised.pt",)


@dataclass(frozen=True, slots=True)
class SaliencyModel:
    """A network with its `name`. `has_decoder` is whether the decoder was trained; of a CLIP checkpoint it was not."""

    network: ClipSegmenter | BundleLogits
    has_decoder: bool
    name: str


def open_saliency_model(spec: str, threads: int = 0) -> SaliencyModel:
    """Open a bundle by name or folder, the folder of a training run, or "clip:TOWER,WEIGHTS[,HEIGHTxWIDTH]".

    WEIGHTS is an open_clip tag or the path of a checkpoint. Raises UsageError for anything else.
    """
    if spec.startswith("clip:"):
        return SaliencyModel(_open_clip(spec), has_decoder=False, name=spec)
    folder = Path(spec)
    if (folder / MANIFEST).is_file() or (SHIPPED / spec / MANIFEST).is_file():
        bundle = open_bundle(spec)
        return SaliencyModel(BundleLogits(bundle, threads), has_decoder=True, name=f"bundle {bundle.manifest.name}")
    path = next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), None)
    if path is None:
        raise UsageError(f"'{spec}' is no network for saliency: give {FORMS}")
    return SaliencyModel(_open_run(path), has_decoder=True, name=f"training run {folder.name}")


def _open_clip(spec: str) -> ClipSegmenter:
    parts = spec.removeprefix("clip:").split(",")
    if len(parts) not in (2, 3):
        raise UsageError(f"'{spec}' is not of the form clip:TOWER,WEIGHTS[,HEIGHTxWIDTH]: correct it")
    height, width = _size(parts[2]) if len(parts) == 3 else (224, 224)
    return ClipSegmenter(NetworkConfig(tower=parts[0], weights=parts[1], height=height, width=width)).eval()


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal()):
        raise UsageError(f"'{text}' is no image size: give HEIGHTxWIDTH, such as 224x224")
    return int(height), int(width)


def _open_run(path: Path) -> ClipSegmenter:
    """Build the network that a checkpoint's settings describe and load its weights, averaged ones if there are."""
    state = read_checkpoint(path, "give another run")
    settings: dict[str, Any] = state.get("settings", {})
    names = {field.name for field in fields(NetworkConfig)}
    given = {
        key: value for key, value in ((k.removeprefix("network."), v) for k, v in settings.items()) if key in names
    }
    try:
        network = ClipSegmenter(NetworkConfig(**given | {"weights": ""}))
        weights = state["network"] | state.get("average", {})
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, TypeError) as error:
        raise CliprlError(
            f"{path} holds no network of this version ({reason_of(error)[:120]}): train it again"
        ) from error
    return network.eval()
