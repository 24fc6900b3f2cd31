"""Matrix products as convolutions: TensorRT for RTX compiles no product in FP32 for Turing ("FP32 GEMM is not supported").

The same sums are a convolution with a 1x1 kernel: each row of the left matrix is an image of one pixel, each column of
the right one a kernel. A batch of products is a convolution in as many groups. Where the number of terms is open (classes), the
products are multiplied out and summed.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from cliprl.engines.onnx.dynamic_conv import shapes_of

Sizes = tuple[int, ...]


def replace_matrix_products(model: Any) -> None:
    """Rewrite, in place, every MatMul and Gemm that can be; one of open sizes is left for TensorRT to judge."""
    graph = model.graph
    shapes = shapes_of(model)
    nodes: list[Any] = []
    for node in graph.node:
        sizes = [shapes.get(name, ()) for name in node.input[:2]]
        closed = all(len(size) >= 2 and min(size) > 0 for size in sizes)
        if node.op_type == "MatMul" and closed and (len(sizes[1]) == 2 or sizes[0][:-2] == sizes[1][:-2]):
            nodes += _product(node, sizes[0], sizes[1], graph)
        elif node.op_type == "MatMul" and len(sizes[0]) == 2 and len(sizes[1]) > 2 and sizes[0][1] < 1:
            nodes += _summed(node, graph)
        elif node.op_type == "Gemm" and closed and _is_plain(node):
            nodes += _affine(node, sizes[0], sizes[1], graph)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


class _Steps:
    """Nodes that follow each other, named after the output they lead to."""

    def __init__(self, node: Any, graph: Any) -> None:
        self.name, self.graph = node.output[0], graph
        self.nodes: list[Any] = []

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return its output's name."""
        output = output or f"{self.name}/{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"{output}/node", **attributes))
        return output

    def reshape(self, value: str, *sizes: int, output: str = "") -> str:
        """A tensor in another shape."""
        shape = f"{self.name}/shape{len(self.nodes)}"
        self.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), shape))
        return self.add("Reshape", value, shape, output=output)


def _product(node: Any, left: Sizes, right: Sizes, graph: Any) -> list[Any]:
    steps = _Steps(node, graph)
    if len(right) == 2:
        kernel = steps.reshape(steps.add("Transpose", node.input[1], perm=[1, 0]), right[1], right[0], 1, 1)
        pixels = steps.reshape(node.input[0], prod(left[:-1]), left[-1], 1, 1)
        steps.reshape(steps.add("Conv", pixels, kernel), *left[:-1], right[1], output=steps.name)
        return steps.nodes
    groups, rows, depth, columns = prod(left[:-2]), left[-2], left[-1], right[-1]
    turned = steps.add("Transpose", steps.reshape(node.input[0], groups, rows, depth), perm=[1, 0, 2])
    pixels = steps.reshape(turned, rows, groups * depth, 1, 1)
    turned = steps.add("Transpose", steps.reshape(node.input[1], groups, depth, columns), perm=[0, 2, 1])
    kernel = steps.reshape(turned, groups * columns, depth, 1, 1)
    found = steps.reshape(steps.add("Conv", pixels, kernel, group=groups), rows, groups, columns)
    steps.reshape(steps.add("Transpose", found, perm=[1, 0, 2]), *left[:-1], columns, output=steps.name)
    return steps.nodes


def _summed(node: Any, graph: Any) -> list[Any]:
    """(n, K) by (..., K, m) as a sum over K of (..., n, K, m)."""
    steps = _Steps(node, graph)
    axes = [f"{steps.name}/{name}" for name in ("columns", "rows", "terms")]
    graph.initializer.extend(
        numpy_helper.from_array(np.array([axis], np.int64), name) for axis, name in zip((-1, -3, -2), axes, strict=True)
    )
    left = steps.add("Unsqueeze", node.input[0], axes[0])
    right = steps.add("Unsqueeze", node.input[1], axes[1])
    steps.add("ReduceSum", steps.add("Mul", left, right), axes[2], output=steps.name, keepdims=0)
    return steps.nodes


def _settings(node: Any) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _is_plain(node: Any) -> bool:
    """Whether a Gemm is x W + b or x W' + b."""
    settings = _settings(node)
    return not settings.get("transA") and settings.get("alpha", 1) == settings.get("beta", 1) == 1


def _affine(node: Any, left: Sizes, right: Sizes, graph: Any) -> list[Any]:
    steps, turned = _Steps(node, graph), _settings(node).get("transB", 0)
    matrix = node.input[1] if turned else steps.add("Transpose", node.input[1], perm=[1, 0])
    outputs, depth = right if turned else right[::-1]
    kernel = steps.reshape(matrix, outputs, depth, 1, 1)
    found = steps.add("Conv", steps.reshape(node.input[0], *left, 1, 1), kernel)
    biased = len(node.input) > 2
    found = steps.reshape(found, left[0], outputs, output="" if biased else steps.name)
    if biased:
        steps.add("Add", found, node.input[2], output=steps.name)
    return steps.nodes
