"""An ONNX graph in half precision: the same names, types and shapes outside, FP16 within.

Strongly typed TensorRT takes its precision from the graph alone. What half can't do well stays in FP32: sums over many
elements, powers and roots, which overflow or vanish, and every operator with a constant that half can't hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from cliprl.engines.errors import EngineError

# Sums, powers and roots: a square of 300 is beyond half's 65504, an epsilon of 1e-8 is zero in it.
KEPT_FP32 = frozenset(
    {"Exp", "InstanceNormalization", "LayerNormalization", "Log", "Pow", "Reciprocal", "Sqrt", "Div"}
    | {"CumSum", "GlobalAveragePool", "LogSoftmax", "ReduceL2", "ReduceMean", "ReduceSum", "ReduceSumSquare"}
)
# Inputs that ONNX wants in FP32 whatever the others are: Resize's region and scales.
FIXED_INPUTS = {"Resize": frozenset({1, 2})}
_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_HALF_MAX = float(np.finfo(np.float16).max)


def to_fp16(model: Any) -> Any:
    """The ONNX `model` with FP16 arithmetic. Inputs and outputs keep their types.

    Raises EngineError for a graph with branches or loops.
    """
    model = shape_inference.infer_shapes(model, data_prop=True)
    if any(attribute.g.node or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise EngineError("a network with branches or loops can't be put into half precision: build it in f32")
    _Converter(model.graph).convert()
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    return model


class _Converter:
    """One pass over a graph in topological order. Each float tensor gets a half name, an FP32 name, or both, on demand."""

    def __init__(self, graph: Any) -> None:
        self.graph = graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.output, *graph.value_info]
        self.floats = {v.name for v in values if v.type.tensor_type.elem_type == _FLOAT}
        self.floats |= {name for name, tensor in self.constants.items() if tensor.data_type == _FLOAT}
        self.names: dict[tuple[str, int], str] = {}
        self.nodes: list[Any] = []

    def convert(self) -> None:
        for value in self.graph.input:
            self.names[value.name, _FLOAT] = value.name
        old = list(self.graph.node)
        for node in old:
            self._node(node)
        for value in self.graph.output:
            if value.name in self.floats:
                self._cast(self._name(value.name, _FLOAT), value.name, _FLOAT)
        used = {name for node in self.nodes for name in node.input}
        tensors = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(tensors)

    def _node(self, node: Any) -> None:
        kind = _FLOAT if self._is_kept(node) else _HALF
        if node.op_type == "Constant":
            return self._constant(node)
        fixed = FIXED_INPUTS.get(node.op_type, frozenset())
        inputs = [self._name(name, _FLOAT if i in fixed else kind) for i, name in enumerate(node.input)]
        outputs = [self._output(name, kind) for name in node.output]
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.extend(outputs)
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == _FLOAT:
                attribute.i = kind
            if attribute.name == "value" and attribute.t.data_type == _FLOAT:
                attribute.t.CopyFrom(_as_half(attribute.t) if kind == _HALF else attribute.t)
        self.nodes.append(node)
        return None

    def _is_kept(self, node: Any) -> bool:
        fixed = FIXED_INPUTS.get(node.op_type, frozenset())
        constants = [self.constants[n] for i, n in enumerate(node.input) if n in self.constants and i not in fixed]
        return node.op_type in KEPT_FP32 or any(tensor.data_type == _FLOAT and _is_lost(tensor) for tensor in constants)

    def _constant(self, node: Any) -> None:
        """A constant becomes an initializer, so that there is one rule for both."""
        tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if tensor is None:
            self.nodes.append(node)
            return
        named = TensorProto()
        named.CopyFrom(tensor)
        named.name = node.output[0]
        self.graph.initializer.append(named)
        self.constants[named.name] = named
        if named.data_type == _FLOAT:
            self.floats.add(named.name)

    def _output(self, name: str, kind: int) -> str:
        if name not in self.floats:
            return name
        self.names[name, kind] = f"{name}/{'half' if kind == _HALF else 'full'}"
        return self.names[name, kind]

    def _name(self, name: str, kind: int) -> str:
        """The name under which the float tensor `name` is to be had as `kind`, which a cast or a constant may make first."""
        if name not in self.floats:
            return name
        if (name, kind) not in self.names:
            self.names[name, kind] = self._made(name, kind)
        return self.names[name, kind]

    def _made(self, name: str, kind: int) -> str:
        if name in self.constants:
            if kind == _FLOAT:
                return name
            half = _as_half(self.constants[name])
            half.name = f"{name}/half"
            self.graph.initializer.append(half)
            return str(half.name)
        other = self.names[name, _HALF if kind == _FLOAT else _FLOAT]
        return self._cast(other, f"{name}/{'half' if kind == _HALF else 'full'}", kind)

    def _cast(self, source: str, target: str, kind: int) -> str:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/cast", to=kind))
        return target


def _as_half(tensor: Any) -> Any:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name)


def _is_lost(tensor: Any) -> bool:
    """Whether half can't hold a constant: it overflows, or is a single number (an epsilon) that becomes zero."""
    values = np.abs(numpy_helper.to_array(tensor))
    if values.size == 1 and 0 < values.max() < np.finfo(np.float16).tiny:
        return True
    return bool(values.size) and float(values[np.isfinite(values)].max(initial=0)) > _HALF_MAX
