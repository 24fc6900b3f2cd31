"""An ONNX graph run by torch, operator by operator.

Shapes and everything that follows from them alone are worked out once for each set of input shapes. What is left is a
`GraphProgram`: a straight list of operators on tensors of one device, which needs no host synchronization and can be recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor

from cliprl.engines.backends.engine import TensorSpec

# Both are imported for the operators that they enter in the list, too.
from cliprl.engines.backends.torch import layers, shapes  # noqa: F401
from cliprl.engines.backends.torch.fusions import fused
from cliprl.engines.backends.torch.ops import OPERATORS, Attributes, Node, Operator
from cliprl.engines.errors import EngineError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class GraphStep:
    """One operator: its inputs by name, or themselves where they are known. `spent` are the names that nothing after it needs."""

    operator: Operator
    inputs: tuple[str | Tensor | None, ...]
    attributes: Attributes
    outputs: tuple[str, ...]
    spent: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GraphProgram:
    """A graph for one set of input shapes."""

    steps: tuple[GraphStep, ...]
    outputs: tuple[str, ...]
    known: Tensors

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Run on tensors of the program's device, of the shapes it was made for."""
        values: dict[str, Tensor] = dict(self.known) | dict(inputs)
        for step in self.steps:
            given = [values[x] if isinstance(x, str) else x for x in step.inputs]
            result = step.operator.run(given, step.attributes)
            values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False))
            for name in step.spent:
                del values[name]
        return {name: values[name] for name in self.outputs}


class Graph:
    """A serialized ONNX model on a torch device, such as "cuda". Raises EngineError for an operator that is not known here."""

    def __init__(self, model: bytes, device: str) -> None:
        self.device = device
        graph = onnx.load_from_string(model).graph
        self._constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
        self._placed: dict[str, Tensor] = {}
        self.inputs: Mapping[str, TensorSpec] = {
            value.name: _spec(value) for value in graph.input if value.name not in self._constants
        }
        self.outputs: Mapping[str, TensorSpec] = {value.name: _spec(value) for value in graph.output}
        nodes = []
        for node in graph.node:
            if node.op_type == "Constant":
                self._constants[node.output[0]] = _constant(node)
            else:
                nodes.append(_node(node))
        self._nodes = fused(nodes, self._constants, tuple(self.outputs))

    @property
    def constants(self) -> Tensors:
        """The graph's constants by name, among them its weights."""
        return self._constants

    def place(self, tensors: Tensors) -> None:
        """Use these tensors instead of the constants of the same names, in programs that are made from now on."""
        self._placed.update(tensors)

    @torch.no_grad()
    def program(self, inputs: Tensors) -> GraphProgram:
        """The program for inputs of these shapes, which it is tried on once."""
        known: dict[str, Tensor] = dict(self._constants)
        values: dict[str, Tensor] = dict(inputs)
        steps = []
        for node in self._nodes:
            if node.kind == "Shape" or all(name in known for name in node.inputs if name):
                given = [known.get(name, values.get(name)) if name else None for name in node.inputs]
                known.update(_named(node, node.operator.run(given, node.attributes)))
                continue
            step = self._step(node, known)
            given = [values[x] if isinstance(x, str) else x for x in step.inputs]
            values.update(_named(node, node.operator.run(given, node.attributes)))
            steps.append(step)
        outputs = tuple(self.outputs)
        constant = {name: known[name].to(self.device) for name in outputs if name in known}
        return GraphProgram(_spending(steps, (*inputs, *outputs)), outputs, constant)

    def _step(self, node: Node, known: Tensors) -> GraphStep:
        inputs: list[str | Tensor | None] = []
        for position, name in enumerate(node.inputs):
            if not name or (name in known and position in node.operator.known):
                inputs.append(known[name] if name else None)
            elif name in known:
                inputs.append(self._place(name, known[name], kernel=node.kind == "Conv" and position == 1))
            elif position in node.operator.known:
                raise EngineError(
                    f"input {position} of {node.kind} depends on the image: torch can't run it as a graph; use TensorRT"
                )
            else:
                inputs.append(name)
        return GraphStep(node.operator, tuple(inputs), node.attributes, node.outputs, ())

    def _place(self, name: str, tensor: Tensor, kernel: bool) -> Tensor:
        """A known tensor on the device; of the graph's own constants there is one copy for all programs."""
        if name in self._placed:
            return self._placed[name]
        placed = tensor.to(self.device)
        if kernel and tensor.ndim == 4:
            # Channels last, as the image comes: the convolutions then keep to it all the way.
            placed = placed.contiguous(memory_format=torch.channels_last)
        if name in self._constants:
            self._placed[name] = placed
        return placed


def _named(node: Node, result: Any) -> dict[str, Tensor]:
    return dict(zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=False))


def _spending(steps: Sequence[GraphStep], kept: Sequence[str]) -> tuple[GraphStep, ...]:
    """The steps with what each is the last to need, so that memory is free again as early as it can be."""
    seen, told = set(kept), list[GraphStep]()
    for step in reversed(steps):
        names = {x for x in step.inputs if isinstance(x, str)} | set(step.outputs)
        spent = tuple(sorted(names - seen))
        told.append(GraphStep(step.operator, step.inputs, step.attributes, step.outputs, spent))
        seen |= names
    return tuple(reversed(told))


def _node(node: Any) -> Node:
    operator = OPERATORS.get(node.op_type)
    if operator is None or node.domain not in ("", "ai.onnx"):
        raise EngineError(
            f"operator {node.domain or 'ONNX'} {node.op_type} is not known to the torch backend: use TensorRT"
        )
    attributes = {a.name: _value(helper.get_attribute_value(a)) for a in node.attribute}
    return Node(node.op_type, operator, tuple(node.input), tuple(node.output), attributes)


def _value(attribute: Any) -> Any:
    return _tensor(attribute) if isinstance(attribute, onnx.TensorProto) else attribute


def _constant(node: Any) -> Tensor:
    values = {a.name: _value(helper.get_attribute_value(a)) for a in node.attribute}
    found = next(iter(values.values()))
    return found if isinstance(found, Tensor) else torch.tensor(found)


def _tensor(tensor: Any) -> Tensor:
    return torch.from_numpy(numpy_helper.to_array(tensor).copy())


def _spec(value: Any) -> TensorSpec:
    kind = value.type.tensor_type
    sizes = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    return TensorSpec(str(shapes.DTYPES[kind.elem_type]).removeprefix("torch."), sizes)
