"""Rewrites of a network for OpenVINO: channels last, texts meet features, an open number of classes, int8 without overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Maps (1, C, h, w) that one network gives and another takes. OpenVINO computes with the channels last; to bring 48 of them first
# for the outside took a quarter of the small encoder's time in bf16 (1.9 of 7.6 ms, one core of an AMD EPYC).
KEPT_CHANNELS_LAST = frozenset({"features"})
CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
# The sum of two int8 weights before they are rounded, by at most a half each: 255 times 128 is still a number of 16 bits.
_LARGEST_PAIR = 127
# Part of the identity of a compiled network: what the rewrites change in it.
REWRITES = (
    f"channels last in {', '.join(sorted(KEPT_CHANNELS_LAST))}, texts compared with features, int8 weights shrunk"
)


def compare_with_features(model: Any) -> None:
    """Compare texts with the features themselves, in place, instead of with pixels embedded in more channels.

    With features y, pixels p = W y + b of E channels, texts t, e and c the logits t p / sqrt(mean(p²) + e) + c become
    ((t W) y + t b) / sqrt((y (WᵀW y + 2 Wᵀb) + b²) / E + e) + c, in float precision in an int8 encoder as well. It takes 4 % less
    time then, and gives logits nearer to those in 32 bits. A network without such a head is left as it is.
    """
    from openvino import opset13 as ops

    try:
        last = model.output("logits").get_node().input_value(0)
        product, added = _inputs(last, "Add")
        scaled, unsqueezed = _inputs(product, "Convolution")
        pixels, factor = _inputs(scaled, "Multiply")
        texts, (one, root) = _inputs(unsqueezed, "Unsqueeze")[0], _inputs(factor, "Divide")
        mean, epsilon = _inputs(_inputs(root, "Sqrt")[0], "Add")
        squared, exponent = _inputs(_inputs(mean, "ReduceMean")[0], "Power")
        embedded, bias = _inputs(pixels, "Add")
        features, kernel = _inputs(embedded, "Convolution")
    except (LookupError, RuntimeError):  # OpenVINO raises RuntimeError for a model without logits
        return
    constants = [_stored(value) for value in (kernel, bias, epsilon, added, exponent, one)]
    if squared != pixels or any(values is None for values in constants):
        return
    weights, offsets, least, level, power, numerator = constants
    if weights.shape[2:] != (1, 1) or level.size > 1 or power != 2 or numerator != 1:
        return
    weights, offsets = weights[:, :, 0, 0], offsets.ravel()

    def convolved(kernel: Any, added: Any) -> Any:
        return ops.add(ops.convolution(features, kernel, [1, 1], [0, 0], [0, 0], [1, 1]), added)

    def stored(array: Any) -> Any:
        return ops.constant(np.ascontiguousarray(array, np.float32))

    embedding, width = weights.shape
    moved = ops.matmul(texts, stored(np.column_stack([weights, offsets])), False, False)
    kernels, shifts = ops.variadic_split(moved, 1, [width, 1]).outputs()
    products = convolved(ops.unsqueeze(kernels, np.array([2, 3])), ops.reshape(shifts, np.array([1, -1, 1, 1]), False))
    slopes, square = 2 * weights.T @ offsets, offsets @ offsets / embedding
    turned = convolved(stored((weights.T @ weights)[:, :, None, None]), stored(slopes[None, :, None, None]))
    sums = ops.multiply(ops.reduce_mean(ops.multiply(features, turned), np.array([1]), True), stored(width / embedding))
    positive = ops.relu(ops.add(sums, stored(square)))  # rounding may make a sum negative
    norms = ops.sqrt(ops.add(positive, stored(least)))
    logits = ops.add(ops.divide(products, norms), stored(level))
    logits.set_friendly_name(last.get_node().get_friendly_name())
    names = last.get_names()
    last.set_names(set())
    last.replace(logits.output(0))
    logits.output(0).set_names(names)
    model.validate_nodes_and_infer_types()


def replace_computed_kernels(model: Any) -> None:
    """Rewrite, in place, 1x1 convolutions of (1, C, h, w) with a computed kernel (K, C, 1, 1) as matrix products.

    Such a one compares pixels with class texts. OpenVINO's CPU plugin runs no convolution whose kernel has an open size.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution" or _stored(node.input_value(1)) is not None:
            continue
        image, kernel = node.input_value(0), node.input_value(1)
        _, channels, height, width = (size.get_length() for size in image.get_partial_shape())
        pixels = ops.reshape(image, np.array([channels, height * width]), special_zero=False)
        texts = ops.reshape(kernel, np.array([-1, channels]), special_zero=False)
        product = ops.matmul(texts, pixels, transpose_a=False, transpose_b=False)
        places = ops.reshape(product, np.array([1, -1, height, width]), special_zero=False)
        places.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(places.output(0))
    model.validate_nodes_and_infer_types()


def shrink_int8_weights(model: Any) -> None:
    """Shrink int8 kernels of an NNCF model, in place, until no sum of two of their products overflows; scales make up for it.

    Without VNNI or AMX, x86 adds the products of two neighboring input channels in 16 bits, which saturate at 32767
    (`vpmaddubsw`). With activations of up to 255 two weights may come to 128; an output channel with more is divided.
    """
    from openvino import Type
    from openvino import opset13 as ops

    for product in model.get_ordered_ops():
        if product.get_type_name() != "Multiply":
            continue
        converted, scale = (product.input_value(i).get_node() for i in (0, 1))
        if converted.get_type_name() != "Convert" or scale.get_type_name() != "Constant":
            continue
        weights = converted.input_value(0).get_node()
        if weights.get_type_name() != "Constant" or weights.get_element_type() != Type.i8:
            continue
        kernel = weights.get_data().astype(np.float32)
        factor = np.minimum(1, _LARGEST_PAIR / np.maximum(_largest_pairs(kernel), 1))
        shrunk = np.round(kernel * factor).astype(np.int8)
        converted.input(0).replace_source_output(ops.constant(shrunk).output(0))
        product.input(1).replace_source_output(ops.constant((scale.get_data() / factor).astype(np.float32)).output(0))


def _largest_pairs(kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest sum, in size, of the weights of input channels 2 i and 2 i + 1, for each output channel.

    kernel: (O, I, ...); the result is (O, 1, ...).
    """
    odd = kernel.shape[1] % 2
    even = np.pad(kernel, [(0, 0), (0, odd)] + [(0, 0)] * (kernel.ndim - 2))
    sums = np.abs(even[:, ::2] + even[:, 1::2])
    largest: NDArray[np.float32] = sums.max(axis=tuple(range(1, sums.ndim)), keepdims=True)
    return largest


def keep_channels_last(model: Any) -> Any:
    """The model, with the maps that networks hand on as (1, h, w, C) at its inputs and outputs."""
    from openvino import Layout
    from openvino.preprocess import PrePostProcessor

    changed = PrePostProcessor(model)
    for ports, ends in ((model.inputs, changed.input), (model.outputs, changed.output)):
        for name in KEPT_CHANNELS_LAST & {port.get_any_name() for port in ports}:
            ends(name).model().set_layout(Layout("NCHW"))
            ends(name).tensor().set_layout(Layout("NHWC"))
    return changed.build()


def _inputs(value: Any, kind: str) -> list[Any]:
    """Return the inputs of the node of this kind that computes a value, without quantization. Raises LookupError for another."""
    node = value.get_node()
    if node.get_type_name() != kind:
        raise LookupError(kind)
    return [_unquantized(node.input_value(i)) for i in range(node.get_input_size())]


def _unquantized(value: Any) -> Any:
    while value.get_node().get_type_name() == "FakeQuantize":
        value = value.get_node().input_value(0)
    return value


def _stored(value: Any) -> Any:
    """Return the constant behind conversions, scales and other shapes, in its stored shape; None for what is computed."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        return np.asarray(node.get_data(), np.float64)
    if node.get_type_name() == "Multiply":  # of int8 and its scale
        numbers, scale = (_stored(node.input_value(i)) for i in (0, 1))
        return None if numbers is None or scale is None else numbers * scale
    reshaped = node.get_type_name() in ("Convert", "Reshape", "Unsqueeze", "Broadcast")
    return _stored(node.input_value(0)) if reshaped else None
