"""Rewrites of an encoder around its quantization by NNCF: less work for OpenVINO, the same function of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Names of the nodes of a narrow head, which stays in float precision.
HEAD = "narrow_head"


def store_grouped_kernels(model: Any) -> None:
    """Store the kernels of grouped convolutions as constants of five axes, in place.

    Behind a reshape, NNCF takes a wrong axis for that of the channels: it gives a depthwise kernel one scale for each of its
    columns. OpenVINO then computes those layers in float precision.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "GroupConvolution":
            continue
        stored = stored_value(node.input_value(1))
        if stored is not None:
            shape = list(node.input_value(1).get_shape())
            node.input(1).replace_source_output(ops.constant(stored.reshape(shape)).output(0))
    model.validate_nodes_and_infer_types()


def drop_clamps(model: Any) -> None:
    """Remove minima, maxima and ReLUs, in place, whose bounds hold after the quantization that follows them."""
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        low, high = (stored_value(node.input_value(i)) for i in (1, 2))
        if low is None or high is None:
            continue
        value = node.input_value(0)
        while (clamped := _clamped(value.get_node(), float(low.min()), float(high.max()))) is not None:
            value = clamped
        node.input(0).replace_source_output(value)
    model.validate_nodes_and_infer_types()


def narrow_head(model: Any) -> list[str]:
    """Rewrite, in place, the comparison of pixels with texts; return the names of its new nodes, none for another head.

    With features y, pixels p = W y + b, texts t and epsilon e the logits are t p / sqrt(mean(p²) + e). They become
    ((t W) y + t b) / sqrt(|R y + r|² / E + c): R has as many rows as y has channels, fewer than the E of p.
    """
    from openvino import opset13 as ops

    found = _head(model)
    if found is None:
        return []
    features, weights, bias, texts, epsilon, last = found
    width = len(weights)
    values, vectors = np.linalg.eigh(weights.T @ weights)
    if width <= len(values) or values[0] <= 0:
        return []
    root = np.sqrt(values)[:, None] * vectors.T
    offset = vectors.T @ (weights.T @ bias) / np.sqrt(values)
    rest = float(bias @ bias - offset @ offset) / width + epsilon

    def constant(array: NDArray[np.float64]) -> Any:
        return ops.constant(array.astype(np.float32))

    def convolved(kernel: Any, added: Any) -> Any:
        return ops.add(ops.convolution(features, kernel, [1, 1], [0, 0], [0, 0], [1, 1]), added)

    kernel = ops.unsqueeze(ops.matmul(texts, constant(weights), False, False), np.array([2, 3]))
    added = ops.reshape(ops.matmul(texts, constant(bias[:, None]), False, False), np.array([1, -1, 1, 1]), False)
    products = convolved(kernel, added)
    rooted = convolved(constant(root[:, :, None, None]), constant(offset[None, :, None, None]))
    squares = ops.reduce_mean(ops.multiply(rooted, rooted), np.array([1]), True)
    scaled = ops.multiply(squares, np.float32(len(values) / width))
    logits = ops.divide(products, ops.sqrt(ops.add(scaled, np.float32(rest))))
    before = {node.get_friendly_name() for node in model.get_ordered_ops()}
    names = last.get_names()
    last.set_names(set())
    last.replace(logits.output(0))
    logits.output(0).set_names(names)
    model.validate_nodes_and_infer_types()
    return _named([node for node in model.get_ordered_ops() if node.get_friendly_name() not in before])


def stored_value(value: Any) -> NDArray[Any] | None:
    """Return the constant behind conversions and reshapes, in its stored shape; None for what is computed."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return np.asarray(node.get_data()) if node.get_type_name() == "Constant" else None


def _clamped(node: Any, low: float, high: float) -> Any:
    """Return what a node clamps, where values between `low` and `high` pass it unchanged; else None."""
    kind = node.get_type_name()
    if len(node.output(0).get_target_inputs()) > 1:  # it is computed for another node anyway
        return None
    if kind == "Relu":
        return node.input_value(0) if low >= 0 else None
    if kind not in ("Minimum", "Maximum"):
        return None
    for given, other in ((0, 1), (1, 0)):
        bound = stored_value(node.input_value(other))
        if bound is not None and bound.size == 1:
            kept = high <= bound.item() if kind == "Minimum" else low >= bound.item()
            return node.input_value(given) if kept else None
    return None


def _head(model: Any) -> tuple[Any, NDArray[np.float64], NDArray[np.float64], Any, float, Any] | None:
    """Return features, W, b, texts, epsilon and the logits, as of `ClipSegmenter`; None where the nodes differ."""
    last = model.output("logits").get_node().input_value(0)
    compared = _of(_of(last, "Add", "Convolution"), "Convolution")
    scaled = _of(compared and compared.get_node().input_value(0), "Multiply")
    texts = _of(compared and compared.get_node().input_value(1), "Unsqueeze")
    pixels = _of(scaled and scaled.get_node().input_value(0), "Add")
    if pixels is None or texts is None:
        return None
    embedded, bias = pixels.get_node().input_value(0), stored_value(pixels.get_node().input_value(1))
    weights = stored_value(embedded.get_node().input_value(1)) if _of(embedded, "Convolution") else None
    epsilon = _epsilon(scaled.get_node().input_value(1), pixels)
    if weights is None or bias is None or epsilon is None or weights.shape[2:] != (1, 1):
        return None
    flat = weights[:, :, 0, 0].astype(np.float64)
    features = embedded.get_node().input_value(0)
    return features, flat, bias.ravel().astype(np.float64), texts.get_node().input_value(0), epsilon, last


def _epsilon(factor: Any, pixels: Any) -> float | None:
    """Return e of a factor 1 / sqrt(mean(pixels²) + e)."""
    for kind, which in (("Divide", 1), ("Sqrt", 0)):
        if _of(factor, kind) is None:
            return None
        factor = factor.get_node().input_value(which)
    if _of(factor, "Add") is None:
        return None
    mean, epsilon = factor.get_node().input_value(0), stored_value(factor.get_node().input_value(1))
    squares = _of(mean, "ReduceMean") and mean.get_node().input_value(0)
    if epsilon is None or _of(squares, "Power") is None or squares.get_node().input_value(0) != pixels:
        return None
    return float(epsilon.item())


def _of(value: Any, kind: str, inner: str = "") -> Any:
    """Return a value that a node of this kind computes (with `inner`, its first input, of that kind); else None."""
    if value is None or value.get_node().get_type_name() != kind:
        return None
    return _of(value.get_node().input_value(0), inner) if inner else value


def _named(nodes: list[Any]) -> list[str]:
    for i, node in enumerate(nodes):
        node.set_friendly_name(f"{HEAD}_{i}")
    return [node.get_friendly_name() for node in nodes if node.get_type_name() != "Constant"]
