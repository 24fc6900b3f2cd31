"""int8 on CPUs that add two products up in 16 bits: kernels are shrunk until nothing overflows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cliprl.engines import open_bundle
from cliprl.engines.backends.openvino import backend as openvino_backend
from cliprl.engines.backends.openvino.backend import why_unsupported
from cliprl.engines.backends.openvino.rewrites import shrink_int8_weights
from cliprl.engines.bundle.bundle import INT8_ENCODER
from cliprl.engines.bundle.reference_outputs import reference_of
from cliprl.engines.selection.engine_variant import compare_with_reference, engine_variants

Kernels = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def int8_kernels(model: Any) -> Kernels:
    """The int8 weights and their scales, by the name of their product."""
    from openvino import Type

    found: Kernels = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Multiply" and node.input_value(0).get_node().get_type_name() == "Convert":
            weights = node.input_value(0).get_node().input_value(0).get_node()
            if weights.get_element_type() == Type.i8:
                scale = node.input_value(1).get_node()
                found[node.get_friendly_name()] = weights.get_data().astype(float), scale.get_data().astype(float)
    return found


def largest_sum(kernel: NDArray[np.float64]) -> float:
    """Of the products of two neighboring input channels with activations of 255."""
    even = np.concatenate([kernel, np.zeros_like(kernel[:, : kernel.shape[1] % 2])], 1)
    return float(255 * np.abs(even[:, ::2] + even[:, 1::2]).max())


def test_int8_kernels_shrink_until_two_products_fit() -> None:
    model = openvino_backend._core().read_model(open_bundle("small").path / INT8_ENCODER)
    before = int8_kernels(model)
    shrink_int8_weights(model)
    after = int8_kernels(model)
    assert before.keys() == after.keys()
    assert max(largest_sum(kernel) for kernel, _ in before.values()) > 32767
    assert max(largest_sum(kernel) for kernel, _ in after.values()) <= 128 * 255 < 32767
    for name, (kernel, scale) in after.items():
        old, old_scale = before[name]
        assert np.all(np.abs(kernel * scale - old * old_scale) <= 0.5001 * scale)
        same = (scale == old_scale).ravel()
        assert np.array_equal(kernel[same], old[same])
        assert all(largest_sum(old[i : i + 1]) > 127 * 255 for i in np.flatnonzero(~same))


def test_int8_without_vnni_passes_the_accuracy_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with VNNI, this only shows that shrunk kernels are good enough."""
    if why_unsupported("int8", frozenset(openvino_backend._flags()), False, True):
        pytest.skip("this CPU has no int8 arithmetic")
    monkeypatch.setattr(openvino_backend, "_flags", lambda: ["avx2"])
    monkeypatch.setattr(openvino_backend, "_capabilities", lambda: ["FP32", "INT8"])  # what is not int8 is f32 there
    bundle = open_bundle("small")
    chosen = next(variant for variant in engine_variants(bundle, "cpu") if variant.precision == "int8")
    comparisons = compare_with_reference(chosen.compile()[1], bundle, reference_of(bundle))
    assert [fault for comparison in comparisons for fault in comparison.faults()] == []


def test_whole_int8_kernels_fail_the_gate_without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """So the accuracy gate would notice kernels that overflow."""
    flags = openvino_backend._flags()
    if "avx2" not in flags or openvino_backend._INT8_FLAGS.intersection(flags):
        pytest.skip("this CPU does not add int8 products up in 16 bits")
    monkeypatch.setattr(openvino_backend, "shrink_int8_weights", lambda model: None)
    bundle = open_bundle("small")
    chosen = next(variant for variant in engine_variants(bundle, "cpu") if variant.precision == "int8")
    comparisons = compare_with_reference(chosen.compile()[1], bundle, reference_of(bundle))
    assert any(comparison.faults() for comparison in comparisons)
