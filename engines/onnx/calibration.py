"""Calibrate the activation ranges of a bundle's encoder for int8 and FP8 on a GPU.

They are kept in the bundle as one small file, from which every GPU makes its own eight-bit engine of `encoder.onnx`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cliprl.engines.backends.no_telemetry import openvino
from cliprl.engines.bundle.bundle import RANGES_FILE, Bundle, seal_bundle
from cliprl.engines.bundle.reference_outputs import ImageBatch, encoder_shapes
from cliprl.engines.errors import BundleError, EngineError, UsageError

# How few images calibrate badly: activations' ranges are taken from them.
FEWEST = 4


def check_enough(images: ImageBatch) -> None:
    """Raises UsageError for too few images."""
    if len(images) < FEWEST:
        raise UsageError(f"{len(images)} images can't calibrate an int8 encoder: give at least {FEWEST}")


def add_ranges(bundle: Bundle, images: ImageBatch) -> Bundle:
    """Note the ranges that the encoder's activations have on `images` uint8 (N, H, W, 3), and seal the bundle again.

    Best are images of the scenes to come. Raises EngineError where the package onnx is missing, UsageError for too few.
    """
    check_enough(images)
    ranges = measure_ranges(bundle, images)
    text = json.dumps({"pictures": len(images), "ranges": ranges}, indent=1) + "\n"
    return seal_bundle(bundle.path, bundle.manifest, bundle.embeddings, {RANGES_FILE: text.encode()})


def measure_ranges(bundle: Bundle, images: ImageBatch) -> dict[str, float]:
    """The largest magnitude of every activation that is multiplied with stored weights, by name; in 32 bits on the CPU."""
    try:
        from cliprl.engines.onnx.dynamic_conv import load_graph
        from cliprl.engines.onnx.quantize import products
    except ImportError as error:
        raise EngineError(f"onnx can't be imported ({error}): pip install onnx") from error
    # Of all products, so that which of them become eight bits may change without a new calibration.
    found = products(load_graph(bundle.encoder), grouped=True, least=1)
    names = list(dict.fromkeys(product.activation for product in found.values()))
    core = openvino().Core()
    model = core.read_model(bundle.encoder)
    model.reshape({name: list(shape) for name, shape in encoder_shapes(bundle).items()})
    given = {name for port in model.outputs for name in port.get_names()}
    model.add_outputs([name for name in names if name not in given])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ranges = dict.fromkeys(names, 0.0)
    for image in images:
        results = compiled({"image": image[None], "text": bundle.embeddings})
        for name in names:
            ranges[name] = max(ranges[name], float(np.abs(results[name]).max()))
    return ranges


def read_ranges(path: Path) -> Mapping[str, float]:
    """The ranges in a file of `add_ranges`. Raises BundleError for another or a garbled file."""
    try:
        ranges = {str(k): float(v) for k, v in json.loads(path.read_text(encoding="utf-8"))["ranges"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} holds no ranges ({error!r}): cliprl-engine quantize writes such a bundle") from error
    if not all(math.isfinite(value) and value >= 0 for value in ranges.values()):
        raise BundleError(f"{path} holds a range that is no size: cliprl-engine quantize writes such a bundle")
    return ranges
