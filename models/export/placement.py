"""Put a finished bundle into its place, and find the one that was made of the same weights."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cliprl.engines import Bundle, BundleError, CliprlError, UsageError, explained, open_bundle
from cliprl.engines.atomic_write import replace_folder
from cliprl.engines.bundle.bundle import MODEL_CARD
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.engines.bundle.manifest_file import read_manifest
from cliprl.models.export.export import TrainedModel
from cliprl.models.network.weights import weights_digest
from cliprl.pipeline.sinks.atomic_file import Identity, file_identity
from cliprl.pipeline.sinks.partial_names import reserve

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


def check_place_of_bundle(out: Path) -> None:
    """Raise UsageError unless `out` is free or a bundle that may be replaced: no file of the user's lies in it."""
    remedy = "give --out another place"
    try:
        present = {path.name for path in out.iterdir()} if os.path.lexists(out) else set()
        manifest = read_manifest(out / MANIFEST) if present else None
    except (OSError, BundleError):
        raise UsageError(f"'{out}' is neither a new folder nor a bundle: {remedy}") from None
    known = {MANIFEST, MODEL_CARD, *(manifest.hashes if manifest else ())}
    if others := sorted(name for name in present - known if not name.startswith(".")):
        raise UsageError(
            f"'{out}' holds '{others[0]}', which its bundle does not list, and would be replaced: move it, or {remedy}"
        )


@dataclass(slots=True)
class BundlePlace:
    """A new folder `path` beside `out`, in which a bundle is made until `publish` gives it its name."""

    out: Path
    path: Path
    notes: list[str]
    _found: Identity | None
    _kept: bool = False

    def publish(self) -> None:
        """Rename the finished bundle to `out`, in place of the bundle that was there when this one was begun.

        Raises CliprlError if that fails; what lies there stays, and the new bundle under its partial name.
        """
        try:
            if file_identity(self.out / MANIFEST) != self._found:
                raise FileExistsError(errno.EEXIST, "another program wrote it meanwhile")
            replace_folder(self.path, self.out)
        except OSError as error:
            self._kept = True
            raise CliprlError(
                f"'{self.out}' can't be written ({error.strerror}): the new bundle is '{self.path}': move it to its place"
            ) from error


@contextmanager
def bundle_place(out: Path, size: int = 0) -> Iterator[BundlePlace]:
    """Hold the place of a new bundle while it is made; what was not published is removed, also the folders made for it.

    Raises UsageError if `out` can't be written, is no place for a bundle, or is held by another run, and CliprlError if there is
    no room for the `size` of the bundle in bytes.
    """
    check_place_of_bundle(out)
    missing = [folder for folder in out.parents if not folder.exists()]
    with explained(f"'{out}' can't be made", "give --out another place"):
        out.parent.mkdir(parents=True, exist_ok=True)
        reserved = reserve(out, folder=True)
    place = BundlePlace(out, reserved.path, reserved.notes, file_identity(out / MANIFEST))
    try:
        if (free := shutil.disk_usage(place.path).free) < size:
            raise CliprlError(
                f"'{out}': {free / 1e6:.0f} MB are free, and the bundle takes {size / 1e6:.0f}: free some space, or give "
                "--out another place"
            )
        yield place
    finally:
        if not place._kept:
            shutil.rmtree(place.path, ignore_errors=True)
        os.close(reserved.handle)
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
