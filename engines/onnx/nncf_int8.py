"""Eight bits for a bundle: an int8 encoder for OpenVINO by NNCF, and the ranges for TensorRT, calibrated on images.

Of the encoder for the CPU only the convolutions become int8; what they do not cover runs in bf16 where there is that, else in
32 bits, and the refiner keeps its float precision. Figures: engines/results/precisions.json.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines.backends import no_telemetry
from cliprl.engines.backends.engine import LogFunction, ignore_message
from cliprl.engines.bundle.bundle import INT8_ENCODER, Bundle, open_bundle, seal_bundle
from cliprl.engines.bundle.reference_outputs import ImageBatch, encoder_shapes
from cliprl.engines.errors import BundleError, EngineError, UsageError, reason_of
from cliprl.engines.onnx.calibration import add_ranges, check_enough


def add_int8(bundle: Bundle, images: ImageBatch) -> Bundle:
    """Give a bundle an int8 encoder, calibrated on `images` uint8 (N, H, W, 3) at the network's size, and seal it again.

    Best are images of the scenes to come, other ones than the reference's. Raises EngineError where NNCF is missing,
    BundleError where the disk is full, UsageError for too few images. Whether the result serves is for the accuracy gate to say.
    """
    check_enough(images)
    try:
        nncf = no_telemetry.nncf()
    except ImportError as error:
        raise EngineError(f"nncf, which quantises, can't be imported ({error}): pip install nncf") from error
    openvino = no_telemetry.openvino()
    model = openvino.Core().read_model(bundle.encoder)
    model.reshape({name: list(shape) for name, shape in encoder_shapes(bundle).items()})
    samples = nncf.Dataset([{"image": image[None], "text": bundle.embeddings} for image in images])
    # VNNI and AMX add up in 32 bits: a bit kept back against overflow would cost labels for nothing. For AVX2 the backend shrinks
    # weights when it compiles them.
    exact = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.DISABLE)
    quantised: Any = nncf.quantize(
        model,
        samples,
        preset=nncf.QuantizationPreset.PERFORMANCE,
        subset_size=len(images),
        advanced_parameters=exact,
    )
    try:
        openvino.save_model(quantised, bundle.path / INT8_ENCODER, compress_to_fp16=False)
    except (OSError, RuntimeError) as error:  # the latter without a reason, from C++
        raise BundleError(
            f"'{bundle.path / INT8_ENCODER}' can't be written ({reason_of(error)}): free space, or give another place"
        ) from error
    return seal_bundle(bundle.path, bundle.manifest, bundle.embeddings)


def quantised_copy(bundle: Bundle, frames: Sequence[Path], folder: Path, log: LogFunction = ignore_message) -> Bundle:
    """Copy a bundle to a new `folder` and give the copy what eight bits need, calibrated on image files.

    `log` gets the name of a missing package and of what is left out. Raises EngineError if both packages are missing,
    UsageError for bad frames.
    """
    images = read_images(frames, bundle.manifest.height, bundle.manifest.width)
    check_enough(images)
    missing = list[str]()
    with _new_folder(folder, bundle.path) as made:
        made.mkdir()
        for file in bundle.path.iterdir():
            if file.is_file():
                shutil.copyfile(file, made / file.name)
        copy = open_bundle(made)
        for add, what in ((add_ranges, "ranges for GPUs"), (add_int8, "int8 encoder for the CPU")):
            try:
                copy = add(copy, images)
            except EngineError as error:
                missing.append(f"no {what}: {error}")
        if len(missing) == 2:
            raise EngineError("; ".join(missing))
    for reason in missing:
        log(reason)
    return open_bundle(folder)


@contextmanager
def _new_folder(folder: Path, source: Path) -> Iterator[Path]:
    """Yield a path that is renamed to `folder` at the end; after an error or a signal it is removed."""
    remedy = "give -o a folder that is not there yet"
    if folder.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"'{folder}' is inside the bundle that is copied: {remedy}, elsewhere")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            if os.path.lexists(folder):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            yield Path(beside) / "made"
            (Path(beside) / "made").rename(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise EngineError(
                f"'{folder}' can't be written ({error.strerror}): free some space, or give -o another place"
            ) from error
        raise UsageError(f"'{folder}' can't be made ({error.strerror or error}): {remedy}") from error


def read_images(paths: Sequence[Path], height: int, width: int) -> ImageBatch:
    """Image files as RGB at the network's size, uint8 (N, H, W, 3). Raises UsageError for one that can't be read."""
    import cv2

    images = []
    for path in paths:
        data = path.read_bytes() if path.is_file() else b""
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is None:
            raise UsageError(f"'{path}' is no image that can be read: give PNG or JPEG files")
        images.append(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1])
    return np.array(images, np.uint8)
