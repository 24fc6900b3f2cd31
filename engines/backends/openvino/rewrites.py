"""Rewrites of a network for OpenVINO: features stay channels last, and the number of classes may be open."""

from __future__ import annotations

from typing import Any

import numpy as np

# Maps (1, C, h, w) that one network gives and another takes. OpenVINO computes with the channels last; to bring 48 of them first
# for the outside took a quarter of the small encoder's time in bf16 (1.9 of 7.6 ms, one core of an AMD EPYC).
KEPT_CHANNELS_LAST = frozenset({"features"})
CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def replace_computed_kernels(model: Any) -> None:
    """Rewrite, in place, 1x1 convolutions of (1, C, h, w) with a computed kernel (K, C, 1, 1) as matrix products.

    Such a one compares pixels with class texts. OpenVINO's CPU plugin runs no convolution whose kernel has an open size.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convolution" or _is_stored(node.input_value(1)):
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


def _is_stored(value: Any) -> bool:
    """Whether a kernel is a constant, perhaps converted or reshaped, and not computed from an input."""
    node = value.get_node()
    while node.get_type_name() in ("Convert", "Reshape", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
