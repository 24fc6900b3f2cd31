"""Put a finished bundle into its place, and find the one that was made of the same weights."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from cliprl.engines import Bundle, CliprlError, open_bundle
from cliprl.models.export.export import TrainedModel
from cliprl.models.network.weights import weights_digest

# The key of a manifest's record of the training that tells which weights and classes the bundle was exported from.
SOURCE_HASH = "source_hash"


def source_hash(model: TrainedModel) -> str:
    """Return a hash of all that an export depends on: weights, classes, size and steps."""
    shape = (tuple(model.classes), model.height, model.width, model.steps)
    return hashlib.sha256(f"{shape} {weights_digest(model.network, model.refiner)}".encode()).hexdigest()


def exported_bundle(folder: Path, source: str) -> Bundle | None:
    """Return the bundle in `folder` if it was exported from the model of that hash, with all that was sealed into it since."""
    try:
        bundle = open_bundle(folder)
    except CliprlError:
        return None
    return bundle if bundle.manifest.training.get(SOURCE_HASH) == source else None


def move_into_place(made: Path, out: Path) -> None:
    """Copy a finished bundle beside `out` and rename it to `out`, in place of the bundle that may lie there.

    Raises CliprlError if that fails; what lay there before then stays.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside:
            whole, old = Path(beside) / "new", Path(beside) / "old"
            shutil.copytree(made, whole)
            try:
                if out.exists():
                    out.rename(old)
                whole.rename(out)
            except BaseException:  # a signal too
                if old.exists() and not out.exists():
                    old.rename(out)
                raise
    except OSError as error:
        raise CliprlError(f"'{out}' can't be written ({error.strerror or error}): give another place") from error
