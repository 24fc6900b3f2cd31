"""Write a tuned encoder as a bundle, and make again what a bundle derives from its encoder."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

from cliprl.engines import Bundle, EngineError, Manifest, UsageError, add_reference, seal_bundle
from cliprl.engines.bundle.bundle import INT8_ENCODER, INT8_WEIGHTS, MODEL_CARD, PROBE_FILE, PROMPT_HEAD, RANGES_FILE
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE
from cliprl.engines.bundle.manifest import MANIFEST
from cliprl.engines.bundle.reference_outputs import ImageBatch, reference_of
from cliprl.engines.onnx.calibration import add_ranges
from cliprl.engines.onnx.nncf_int8 import add_int8
from cliprl.engines.selection.engine_variant import compare_with_reference, engine_variants
from cliprl.models.export.probe_images import probe_images
from cliprl.models.tuning.trainable_encoder import TrainableEncoder

# Files that are wrong for another encoder.
_DERIVED = (MANIFEST, MODEL_CARD, PROBE_FILE, RANGES_FILE, INT8_ENCODER, INT8_WEIGHTS, CONFIDENCE_FILE, PROMPT_HEAD)
# What is left out because it was fitted to the old encoder: what a bundle does without it, and how to make it anew.
_LEFT_OUT = {
    CONFIDENCE_FILE: "no frame is marked as unsure or unfamiliar; fit it with python -m "
    "cliprl.models.studies.confidence.calibration --bundle {} --set data.root=FOLDER --out FOLDER --write",
    PROMPT_HEAD: "corrections by clicks use GrabCut; train it with python -m cliprl.models.promptable.train {} --data LINE",
}


def copy_with_encoder(bundle: Bundle, encoder: TrainableEncoder, manifest: Manifest, folder: Path) -> Bundle:
    """Write a copy of `bundle` with the trained encoder and its reference outputs into the empty `folder`.

    What else the old encoder decides is left out.
    """
    for name in bundle.manifest.hashes:
        if name not in _DERIVED:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, folder / name)
    encoder.write(folder)
    tuned = seal_bundle(folder, manifest, bundle.embeddings)
    return add_reference(tuned, probe_images(manifest.height, manifest.width))


def add_derived(bundle: Bundle, like: Bundle, images: ImageBatch, place: Path, log: Callable[[str], None]) -> Bundle:
    """Give a bundle an int8 encoder and ranges if the bundle `like` has them, calibrated on `images`.

    `log` gets the reason for what is left out: a missing package, an int8 encoder that the accuracy gate refuses, the confidence
    and the promptable head that were fitted to the old encoder. `place` is the folder that the bundle will have.
    """
    for file, effect in _LEFT_OUT.items():
        if file in like.manifest.hashes:
            log(f"without {file}: {effect.format(shlex.quote(str(place)))}")
    for file, add in ((INT8_ENCODER, add_int8), (RANGES_FILE, add_ranges)):
        if file in like.manifest.hashes:
            try:
                bundle = add(bundle, images)
            except EngineError as error:
                log(f"without {file}: {error}")
    faults = _int8_faults(bundle) if INT8_ENCODER in bundle.manifest.hashes else []
    if faults:
        log(f"without {INT8_ENCODER}: {'; '.join(faults)}")
        for file in (INT8_ENCODER, INT8_WEIGHTS):
            (bundle.path / file).unlink()
        bundle = seal_bundle(bundle.path, bundle.manifest, bundle.embeddings)
    return bundle


def _int8_faults(bundle: Bundle) -> list[str]:
    """Return what the accuracy gate finds; nothing on a CPU that does not run int8, where the gate decides later."""
    try:
        variant = next(engine_variants(bundle, "cpu", "int8"))
        compared = compare_with_reference(variant.compile()[1], variant.bundle, reference_of(bundle))
    except UsageError:
        return []
    except EngineError as error:
        return [str(error)]
    return [fault for one in compared for fault in one.faults()]
