"""Groups of operators that torch has as one: attention and GELU, which exporters write out in full.

Written out, attention passes its matrix of weights through the GPU's memory four times, and GELU its tensor five times.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Tensor
from torch.nn import functional

from cliprl.engines.backends.torch.ops import OPERATORS, Attributes, Inputs, Node, Operator


def fused(nodes: Sequence[Node], constants: Mapping[str, Tensor], outputs: Sequence[str]) -> list[Node]:
    """The same graph with each group as one node. `nodes` are in topological order."""
    graph = _Neighbors(nodes, constants)
    found = {old.outputs: new for old, new in (*_attentions(graph), *_gelus(graph))}
    return _needed([found.get(node.outputs, node) for node in nodes], outputs)


def _needed(nodes: Sequence[Node], outputs: Sequence[str]) -> list[Node]:
    """The nodes that the outputs depend on."""
    wanted, kept = set(outputs), list[Node]()
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


class _Neighbors:
    """The node that produces each tensor and the nodes that consume it; casts are skipped."""

    def __init__(self, nodes: Sequence[Node], constants: Mapping[str, Tensor]) -> None:
        self.nodes, self._constants = nodes, constants
        self._makers = {name: node for node in nodes for name in node.outputs}
        self._takers = defaultdict[str, list[Node]](list)
        for node in nodes:
            for name in dict.fromkeys(node.inputs):
                self._takers[name].append(node)

    def source(self, name: str) -> str:
        """A tensor before its changes of type."""
        maker = self._makers.get(name)
        return self.source(maker.inputs[0]) if maker is not None and maker.kind == "Cast" else name

    def maker(self, name: str, kind: str) -> Node | None:
        """The node that produces a tensor, if it is of that kind."""
        maker = self._makers.get(self.source(name))
        return maker if maker is not None and maker.kind == kind else None

    def takers(self, node: Node, kind: str) -> Iterator[Node]:
        """The nodes of that kind that consume the output of a node."""
        for taker in self._takers[node.outputs[0]]:
            if taker.kind == kind:
                yield taker
            elif taker.kind == "Cast":
                yield from self.takers(taker, kind)

    def partner(self, node: Node, constant: float) -> str | None:
        """A node's other input, if one of its two is this constant."""
        for name, other in (node.inputs, node.inputs[::-1]):
            value = self._constants.get(self.source(name))
            if value is not None and value.numel() == 1 and math.isclose(float(value), constant, rel_tol=1e-3):
                return other
        return None


def _attentions(graph: _Neighbors) -> Iterator[tuple[Node, Node]]:
    """softmax(queries * keys) * values, along the last axis."""
    for node in graph.nodes:
        if node.kind != "Softmax" or node.attributes.get("axis", -1) != -1:
            continue
        scores = graph.maker(node.inputs[0], "MatMul")
        for product in graph.takers(node, "MatMul"):
            if scores is not None and product.inputs[0] == node.outputs[0] and scores.outputs[0] == node.inputs[0]:
                yield product, replace(product, operator=_ATTENTION, inputs=(*scores.inputs, product.inputs[1]))


def _attend(inputs: Inputs, attributes: Attributes) -> Tensor:
    queries, keys, values = inputs
    if queries.ndim != 4:
        mixed: Tensor = functional.softmax(queries @ keys, -1) @ values
        return mixed
    # The fast ways want each key's numbers beside each other.
    keys = keys.transpose(-1, -2).contiguous()
    return functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)


_ATTENTION = Operator(_attend)


def _gelus(graph: _Neighbors) -> Iterator[tuple[Node, Node]]:
    """x * ((erf(x / sqrt(2)) + 1) * 0.5), as torch's exporter has it."""
    for node in graph.nodes:
        divided = graph.maker(node.inputs[0], "Div") if node.kind == "Erf" else None
        if divided is None or graph.partner(divided, math.sqrt(2)) != divided.inputs[0]:
            continue
        x = graph.source(divided.inputs[0])
        for end in _scaled(graph, node):
            whole = [name for name in end.inputs if graph.source(name) == x]
            if whole:
                yield end, replace(end, kind="Gelu", operator=OPERATORS["Gelu"], inputs=(whole[0],), attributes={})


def _scaled(graph: _Neighbors, erf: Node) -> Iterator[Node]:
    """The products that a halved sum with one goes into."""
    for plus in graph.takers(erf, "Add"):
        for half in graph.takers(plus, "Mul"):
            if graph.partner(plus, 1.0) is not None and graph.partner(half, 0.5) is not None:
                yield from graph.takers(half, "Mul")
