"""An ONNX graph whose products are int8 or FP8: QuantizeLinear and DequantizeLinear around each, as TensorRT reads them.

Strongly typed TensorRT has no flags and no calibrator: the precision is in the graph. A scale is symmetric, one for each
activation (from its calibrated range) and one for each output channel of a weight. Only products with stored weights become
eight bits; two kinds of them do not, as measured on the small bundle (engines/results/precisions.json):

- convolutions in groups: TensorRT for RTX multiplies them out (a plan of 24 MB in place of 9), and FP8 loses labels in them;
- those of fewer than LEAST_CHANNELS: the first layers, on the largest maps, in which FP8's three bits of mantissa cost most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cliprl.engines.errors import EngineError

INT8, FP8 = "int8", "fp8"
LEAST_CHANNELS = 32
# FLOAT8E4M3FN came with this operator set; what changed since 18 in the operators of our networks only adds types.
OPSET = 19
# The ONNX type of each, and the largest number it holds (int8's -128 is left out: symmetric).
TYPES = {INT8: (TensorProto.INT8, 127.0), FP8: (TensorProto.FLOAT8E4M3FN, 448.0)}


@dataclass(frozen=True, slots=True)
class Product:
    """A node that multiplies an activation with stored weights; `axis` of the weights counts output channels."""

    activation: str
    weights: str
    values: NDArray[Any]
    axis: int


def products(model: Any, grouped: bool = False, least: int = LEAST_CHANNELS) -> dict[str, Product]:
    """The products to compute in eight bits, by the name of their output; `grouped` convolutions too where asked for."""
    stored = _stored(model.graph)
    found = {node.output[0]: _product(node, stored) for node in model.graph.node}
    return {
        name: product
        for name, product in found.items()
        if product is not None and _is_wide(product, least) and (grouped or not _is_grouped(model, name))
    }


def quantize_graph(
    model: Any, precision: str, ranges: Mapping[str, float], chosen: Mapping[str, Product] | None = None
) -> Any:
    """The `model` with the `chosen` products (by default all of `products`) in "int8" or "fp8", changed in place.

    `ranges` are the largest magnitudes of activations by name. Raises EngineError for one that is missing.
    """
    found = products(model) if chosen is None else chosen
    writer = _Writer(model.graph, precision, ranges)
    nodes = list(model.graph.node)
    for node in nodes:
        product = found.get(node.output[0])
        if product is not None:
            node.input[0] = writer.activation(product.activation)
            node.input[1] = writer.weights(product)
        writer.nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(writer.nodes)
    _drop_unused(model.graph)
    domain = next(each for each in model.opset_import if not each.domain)
    domain.version = max(domain.version, OPSET)
    return model


class _Writer:
    """Collects the graph's nodes, and before each product those that quantise; what several products share is made once."""

    def __init__(self, graph: Any, precision: str, ranges: Mapping[str, float]) -> None:
        self.graph, self.precision, self.ranges = graph, precision, ranges
        self.kind, self.top = TYPES[precision]
        self.nodes: list[Any] = []
        self._made: dict[str, str] = {}

    def activation(self, name: str) -> str:
        """The name of an activation that has gone through eight bits."""
        if name not in self._made:
            if name not in self.ranges:
                raise EngineError(
                    f"'{name}' was not calibrated for {self.precision}: cliprl-engine quantize, once more"
                )
            scales, _ = self._scales(name, np.array(self.ranges[name], np.float32))
            self.nodes.append(helper.make_node("QuantizeLinear", [name, *scales], [f"{name}/8"], name=f"{name}/to8"))
            self._made[name] = self._widened(name, scales)
        return self._made[name]

    def weights(self, product: Product) -> str:
        """The name of weights that are stored in eight bits."""
        name, axis = product.weights, product.axis
        if name not in self._made:
            others = tuple(i for i in range(product.values.ndim) if i != axis)
            scales, steps = self._scales(name, np.abs(product.values).max(axis=others))
            values = product.values / np.expand_dims(steps, others)
            self.graph.initializer.append(_eight(f"{name}/8", values, self.kind, self.top))
            self._made[name] = self._widened(name, scales, axis=axis)
        return self._made[name]

    def _widened(self, name: str, scales: list[str], **settings: Any) -> str:
        node = helper.make_node(
            "DequantizeLinear", [f"{name}/8", *scales], [f"{name}/wide"], name=f"{name}/from8", **settings
        )
        self.nodes.append(node)
        return str(node.output[0])

    def _scales(self, name: str, largest: NDArray[np.float32]) -> tuple[list[str], NDArray[np.float32]]:
        """Store scale and zero point; the scale is one that half precision holds, for it may be stored in that."""
        exact = np.asarray(largest / self.top, np.float32)
        near = exact.astype(np.float16)
        # Up, never down, which would cut the largest off.
        half = np.where((near < exact) | (near == 0), np.nextafter(near, np.float16(np.inf)), near)
        scale = half.astype(np.float32)
        names = [f"{name}/scale", f"{name}/zero"]
        self.graph.initializer.append(numpy_helper.from_array(scale, names[0]))
        self.graph.initializer.append(helper.make_tensor(names[1], self.kind, scale.shape, bytes(scale.size), raw=True))
        return names, scale


def _stored(graph: Any) -> dict[str, NDArray[Any]]:
    """Matrices and kernels that the graph stores, by name."""
    constants = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    tensors = {tensor.name: tensor for tensor in graph.initializer} | constants
    return {
        name: numpy_helper.to_array(tensor)
        for name, tensor in tensors.items()
        if len(tensor.dims) >= 2 and tensor.data_type == TensorProto.FLOAT
    }


def _product(node: Any, stored: Mapping[str, NDArray[Any]]) -> Product | None:
    if node.op_type not in ("Conv", "MatMul", "Gemm") or node.input[1] not in stored or node.input[0] in stored:
        return None
    values, settings = stored[node.input[1]], _settings(node)
    if node.op_type != "Conv" and (values.ndim != 2 or settings.get("transA")):
        return None
    axis = 0 if node.op_type == "Conv" or settings.get("transB") else 1
    return Product(node.input[0], node.input[1], values, axis)


def _settings(node: Any) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _is_grouped(model: Any, output: str) -> bool:
    node = next(each for each in model.graph.node if each.output[0] == output)
    return bool(_settings(node).get("group", 1) != 1)


def _is_wide(product: Product, least: int) -> bool:
    return bool(min(product.values.shape[:2]) >= least)


def _eight(name: str, values: NDArray[Any], kind: int, top: float) -> Any:
    """Weights over their scales as a stored tensor of eight bits each, to the nearest."""
    import ml_dtypes

    held = np.clip(values, -top, top)
    raw = np.rint(held).astype(np.int8) if kind == TensorProto.INT8 else held.astype(ml_dtypes.float8_e4m3fn)
    return helper.make_tensor(name, kind, values.shape, raw.tobytes(), raw=True)


def _drop_unused(graph: Any) -> None:
    """Leave out the weights that nothing reads any more."""
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    nodes = [node for node in graph.node if node.op_type != "Constant" or node.output[0] in used]
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
