"""An int8 encoder for a bundle: post-training quantisation by NNCF, calibrated on pictures, run by OpenVINO.

Only the encoder's convolutions become int8; what they do not cover stays in 32 bits, and the refiner keeps its float
precision. Measured on a half-trained small bundle, 12 pictures, one core with AVX512-VNNI and -BF16:

    f32            12.7 ms
    bf16            8.3 ms    99.7 % of labels as in f32
    int8 and f32    8.2 ms    99.2 %
    int8 and bf16   7.5 ms    98.6 %: refused by the gate
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cliprl.engines.bundle import INT8_ENCODER, Bundle, open_bundle, seal_bundle
from cliprl.engines.errors import EngineError, UsageError
from cliprl.engines.reference import Pictures, encoder_shapes

# How few pictures calibrate badly: activations' ranges are taken from them.
FEWEST = 4


def add_int8(bundle: Bundle, pictures: Pictures) -> Bundle:
    """Give a bundle an int8 encoder, calibrated on `pictures` uint8 (N, H, W, 3) at the network's size, and seal it again.

    Best are pictures of the scenes to come, other ones than the reference's. Raises EngineError where NNCF is missing,
    UsageError for too few pictures. Whether the result serves is for the accuracy gate to say.
    """
    if len(pictures) < FEWEST:
        raise UsageError(f"{len(pictures)} pictures can't calibrate an int8 encoder: give at least {FEWEST}")
    try:
        import nncf
    except ImportError as error:
        raise EngineError(f"nncf, which quantises, can't be imported ({error}): pip install nncf") from error
    import openvino

    model = openvino.Core().read_model(bundle.encoder)
    model.reshape({name: list(shape) for name, shape in encoder_shapes(bundle).items()})
    samples = nncf.Dataset([{"image": picture[None], "text": bundle.embeddings} for picture in pictures])
    quantised: Any = nncf.quantize(
        model, samples, preset=nncf.QuantizationPreset.PERFORMANCE, subset_size=len(pictures)
    )
    openvino.save_model(quantised, bundle.path / INT8_ENCODER, compress_to_fp16=False)
    return seal_bundle(bundle.path, bundle.manifest, bundle.embeddings)


def quantised_copy(bundle: Bundle, frames: Sequence[Path], folder: Path) -> Bundle:
    """Copy a bundle to a new `folder` and give the copy an int8 encoder, calibrated on image files."""
    pictures = read_pictures(frames, bundle.manifest.height, bundle.manifest.width)
    try:
        shutil.copytree(bundle.path, folder)
    except OSError as error:
        raise UsageError(
            f"'{folder}' can't be made ({error.strerror or error}): give -o a folder that is not there yet"
        ) from error
    return add_int8(open_bundle(folder), pictures)


def read_pictures(paths: Sequence[Path], height: int, width: int) -> Pictures:
    """Image files as RGB at the network's size, uint8 (N, H, W, 3). Raises UsageError for one that can't be read."""
    import cv2

    pictures = []
    for path in paths:
        data = path.read_bytes() if path.is_file() else b""
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
        if image is None:
            raise UsageError(f"'{path}' is no picture that can be read: give PNG or JPEG files")
        pictures.append(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[..., ::-1])
    return np.array(pictures, np.uint8)
