"""Rewrites of an encoder around its quantization: the same function, with less to compute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cliprl.engines import Bundle, open_bundle
from cliprl.engines.backends.no_telemetry import openvino
from cliprl.engines.onnx.int8_rewrites import drop_clamps, narrow_head, store_grouped_kernels

# Any sides that the network's strides divide: small ones are quick.
SIZE = (64, 96)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle("small")


def read_encoder(bundle: Bundle) -> Any:
    model = openvino().Core().read_model(bundle.encoder)
    model.reshape({"image": [1, *SIZE, 3], "text": list(bundle.embeddings.shape)})
    return model


def computed(bundle: Bundle, model: Any) -> tuple[Any, Any]:
    compiled = openvino().Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    outputs = compiled({"image": image, "text": bundle.embeddings})
    return outputs["features"], outputs["logits"]


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


def test_a_narrow_head_and_stored_kernels_compute_the_same(bundle: Bundle) -> None:
    model = read_encoder(bundle)
    features, logits = computed(bundle, model)
    store_grouped_kernels(model)
    assert narrow_head(model)
    found = computed(bundle, model)
    np.testing.assert_allclose(found[0], features, atol=1e-4)
    np.testing.assert_allclose(found[1], logits, atol=1e-3)
    grouped = [node for node in model.get_ordered_ops() if node.get_type_name() == "GroupConvolution"]
    assert grouped
    assert {node.input_value(1).get_node().get_type_name() for node in grouped} == {"Constant"}


def test_a_second_rewrite_finds_nothing_to_do(bundle: Bundle) -> None:
    model = read_encoder(bundle)
    store_grouped_kernels(model)
    narrow_head(model)
    before = kinds(model)
    assert narrow_head(model) == []
    store_grouped_kernels(model)
    assert kinds(model) == before


@pytest.mark.parametrize(("highest", "shared", "left"), [(6.0, False, 0), (7.0, False, 2), (6.0, True, 2)])
def test_only_a_clamp_that_quantization_repeats_is_removed(highest: float, shared: bool, left: int) -> None:
    from openvino import Model
    from openvino import opset13 as ops

    given = ops.parameter([1, 4], np.float32)
    clamped = ops.minimum(ops.maximum(given, np.float32(0)), np.float32(6))
    results = [ops.fake_quantize(clamped, *map(np.float32, (0, highest, 0, highest)), 256)]
    model = Model([*results, clamped] if shared else results, [given])
    compiled = openvino().Core().compile_model(model, "CPU")
    values = np.array([[-3, 2, 5.9, 9]], np.float32)
    expected = compiled([values])[0]
    drop_clamps(model)
    assert sum(kind in ("Minimum", "Maximum") for kind in kinds(model)) == left
    np.testing.assert_allclose(openvino().Core().compile_model(model, "CPU")([values])[0], expected, atol=1e-6)
