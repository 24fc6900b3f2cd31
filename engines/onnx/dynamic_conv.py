"""Rewrite convolutions with a computed kernel, because TensorRT takes no kernel of unknown size.

The comparison of pixels with class texts is one: its kernel is the texts, as many as there are classes. But the
same sums are a convolution of the texts, a batch of K images of one pixel, with the pixels as kernel, h w of them. (A
matrix product would say the same, but TensorRT for RTX compiles none in FP32 for Turing: "FP32 GEMM is not supported".)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from cliprl.engines.errors import EngineError


def rewrite_computed_kernels(model: Any) -> None:
    """Rewrite, in place, every 1x1 convolution of (N, C, h, w), N known, with a computed kernel (K, C, 1, 1).

    Raises EngineError for a computed kernel of another kind.
    """
    graph = model.graph
    stored = {tensor.name for tensor in graph.initializer} | {
        output for node in graph.node if node.op_type == "Constant" for output in node.output
    }
    shapes = shapes_of(model)
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] in stored:
            nodes.append(node)
            continue
        size = _plain_size(node, shapes)
        nodes += _inside_out(node, size, graph)
    del graph.node[:]
    graph.node.extend(nodes)


def shapes_of(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of an ONNX model's tensors, stored ones too, by name; -1 is an open size."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return stored | {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
        for value in [*graph.input, *graph.output, *graph.value_info]
    }


def _plain_size(node: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[int, int, int, int]:
    """Number, channels, height and width of the images, if the convolution is a plain product at each pixel."""
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    image, kernel = shapes.get(node.input[0], ()), shapes.get(node.input[1], ())
    plain = (
        attributes.get("group", 1) == 1
        and all(stride == 1 for stride in attributes.get("strides", ()))
        and not any(attributes.get("pads", ()))
        and len(image) == len(kernel) == 4
        and kernel[2:] == (1, 1)
        and min(image) > 0
    )
    if not plain:
        raise EngineError(
            f"convolution '{node.name}' computes a kernel {kernel} for {image}: only a 1x1 one on images of known size will do"
        )
    return image[0], image[1], image[2], image[3]


def _inside_out(node: Any, size: tuple[int, int, int, int], graph: Any) -> list[Any]:
    """Texts (K, C, 1, 1) * pixels (N h w, C, 1, 1) -> (K, N h w, 1, 1), plus the bias, as (N, K, h, w)."""
    count, channels, height, width = size
    name, (image, kernel, *bias) = node.output[0], node.input
    shapes = {
        "rows": (count, channels, height * width),
        "pixels": (count * height * width, channels, 1, 1),
        "column": (-1, 1, 1, 1),
        "places": (-1, count, height, width),
    }
    for suffix, values in shapes.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"{name}/{suffix}"))
    perms: dict[str, dict[str, Any]] = {f"{name}/turned": {"perm": [0, 2, 1]}, name: {"perm": [1, 0, 2, 3]}}
    steps = [
        ("Reshape", [image, f"{name}/rows"], f"{name}/flat"),
        ("Transpose", [f"{name}/flat"], f"{name}/turned"),
        ("Reshape", [f"{name}/turned", f"{name}/pixels"], f"{name}/kernel"),
        ("Conv", [kernel, f"{name}/kernel"], f"{name}/product"),
    ]
    if bias:
        steps += [
            ("Reshape", [bias[0], f"{name}/column"], f"{name}/offset"),
            ("Add", [f"{name}/product", f"{name}/offset"], f"{name}/sum"),
        ]
    steps.append(("Reshape", [steps[-1][2], f"{name}/places"], f"{name}/placed"))
    steps.append(("Transpose", [f"{name}/placed"], name))
    return [
        helper.make_node(kind, inputs, [output], name=f"{output}/node", **perms.get(output, {}))
        for kind, inputs, output in steps
    ]


def load_graph(path: Any) -> Any:
    """Read an ONNX file. Raises EngineError where it is none."""
    try:
        return onnx.load(path)
    except Exception as error:
        raise EngineError(f"{path} is not an ONNX file ({type(error).__name__}): export the network again") from error
