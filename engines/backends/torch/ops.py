"""ONNX operators in torch, by name: the list of them, arithmetic, and sums over axes.

Each takes the node's inputs (None where one is left out) and its attributes. Inputs at the positions that `known` tells must
be known before the run, as shapes and axes are. Source of every definition: the ONNX operator specification, opset 18.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cliprl.engines.errors import EngineError

Attributes = Mapping[str, Any]
Inputs = Sequence[Any]
Run = Callable[[Inputs, Attributes], Any]


@dataclass(frozen=True, slots=True)
class Operator:
    """How to run one; `known` are the positions of the inputs that decide shapes."""

    run: Run
    known: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a graph: an operator, and the tensors that it takes and gives, by name."""

    kind: str
    operator: Operator
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Attributes


OPERATORS: dict[str, Operator] = {}


def operator(*names: str, known: Sequence[int] = ()) -> Callable[[Run], Run]:
    """Enter a function under these names."""

    def enter(run: Run) -> Run:
        for name in names:
            OPERATORS[name] = Operator(run, frozenset(known))
        return run

    return enter


def integers(tensor: Tensor | None) -> list[int] | None:
    """A known tensor of sizes or axes as Python's integers."""
    return None if tensor is None else [int(value) for value in tensor.reshape(-1).tolist()]


def _plain(function: Callable[..., Any]) -> Run:
    """An operator that is a function of its inputs and nothing else."""
    return lambda inputs, attributes: function(*inputs)


_SAME: Mapping[str, Callable[..., Any]] = {
    "Abs": torch.abs,
    "Add": torch.add,
    "And": torch.logical_and,
    "Cos": torch.cos,
    "Equal": torch.eq,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "HardSwish": functional.hardswish,
    "Identity": lambda x: x,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Log": torch.log,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Or": torch.logical_or,
    "Pow": torch.pow,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sin": torch.sin,
    "Sqrt": torch.sqrt,
    "Sub": torch.sub,
    "Tanh": torch.tanh,
    "Where": torch.where,
}
OPERATORS |= {name: Operator(_plain(function)) for name, function in _SAME.items()}


@operator("Div")
def _div(inputs: Inputs, attributes: Attributes) -> Tensor:
    above, below = inputs
    return torch.div(above, below, rounding_mode=None if above.is_floating_point() else "trunc")


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Run:
    """An operator of two that takes any number."""

    def run(inputs: Inputs, attributes: Attributes) -> Tensor:
        result: Tensor = inputs[0]
        for other in inputs[1:]:
            result = function(result, other)
        return result

    return run


OPERATORS |= {"Max": Operator(_folded(torch.maximum)), "Min": Operator(_folded(torch.minimum))}


@operator("Clip", known=(1, 2))
def _clip(inputs: Inputs, attributes: Attributes) -> Tensor:
    low, high = (None if limit is None else limit.item() for limit in (*inputs[1:], None, None)[:2])
    return torch.clamp(inputs[0], low, high) if (low, high) != (None, None) else inputs[0]


@operator("Gelu")
def _gelu(inputs: Inputs, attributes: Attributes) -> Tensor:
    return functional.gelu(inputs[0], approximate=attributes.get("approximate", b"none").decode())


@operator("Gemm")
def _gemm(inputs: Inputs, attributes: Attributes) -> Tensor:
    left, right = (x.mT if attributes.get(f"trans{side}") else x for x, side in zip(inputs, "AB", strict=False))
    product = attributes.get("alpha", 1.0) * (left @ right)
    total: Tensor = product if len(inputs) < 3 else product + attributes.get("beta", 1.0) * inputs[2]
    return total


@operator("Softmax")
def _softmax(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.softmax(inputs[0], attributes.get("axis", -1))


@operator("Einsum")
def _einsum(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.einsum(attributes["equation"].decode(), *inputs)


_REDUCTIONS: Mapping[str, Callable[..., Tensor]] = {
    "ReduceL2": lambda x, axes, keep: torch.linalg.vector_norm(x, dim=axes, keepdim=keep),
    "ReduceMax": torch.amax,
    "ReduceMean": torch.mean,
    "ReduceMin": torch.amin,
    "ReduceSum": torch.sum,
}


def _reduction(function: Callable[..., Tensor]) -> Run:
    def run(inputs: Inputs, attributes: Attributes) -> Any:
        axes = integers(inputs[1]) if len(inputs) > 1 else attributes.get("axes")
        if not axes and attributes.get("noop_with_empty_axes"):
            return inputs[0]
        return function(inputs[0], axes or list(range(inputs[0].ndim)), bool(attributes.get("keepdims", 1)))

    return run


OPERATORS |= {name: Operator(_reduction(function), frozenset({1})) for name, function in _REDUCTIONS.items()}


@operator("ArgMax")
def _argmax(inputs: Inputs, attributes: Attributes) -> Tensor:
    if attributes.get("select_last_index"):
        raise EngineError("ArgMax with select_last_index has no likeness in torch: export the network again")
    return torch.argmax(inputs[0], attributes.get("axis", 0), bool(attributes.get("keepdims", 1)))
