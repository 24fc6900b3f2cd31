"""The encoder of a bundle with trainable last layers; its ONNX file is the only source of weights.

The graph is divided in two: the frozen part runs once for each view, and its outputs are cached; the trained part runs in
each step. The trained weights go back into the same graph, so that the exported network differs in them alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from cliprl.engines import Bundle, EngineError, UsageError
from cliprl.engines.backends.torch.graph import Graph, GraphStep
from cliprl.engines.bundle.bundle import ENCODER, IMAGE

# The exporter names weights by their module; those of the backbone begin with this.
BACKBONE = "clip."
# Operators whose second and third inputs are weights.
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "LayerNormalization", "MatMul")
_TEXT = "text"


class TrainableEncoder(nn.Module):
    """The encoder of a bundle for batches of one size. Trained: all weights behind the backbone, and its last `blocks` operators.

    `names` and `weights` are the trained weights; `boundary` names the tensors that pass from the frozen to the trained part;
    `blend` is the share of the training in the weights (see `blend.py`).
    Raises UsageError if the encoder was not written by `cliprl-train`, or has operators that torch cannot run.
    """

    def __init__(self, bundle: Bundle, batch: int, blocks: int) -> None:
        super().__init__()
        try:
            model = onnx.load(bundle.encoder)
            graph = Graph(model.SerializeToString(), "cpu")
            self.names = trained_weights(model, blocks)
            self.weights = nn.ParameterList(nn.Parameter(_own_layout(graph.constants[name])) for name in self.names)
            graph.place(dict(zip(self.names, self.weights, strict=True)))
            shape = (batch, bundle.manifest.height, bundle.manifest.width, 3)
            inputs = {IMAGE: torch.zeros(shape, dtype=torch.uint8), _TEXT: torch.from_numpy(bundle.embeddings)}
            self._program = graph.program(inputs)
        except EngineError as error:
            raise UsageError(f"the encoder of '{bundle.path}' can't be trained: {error}") from error
        if not self.names:
            raise UsageError(
                f"the encoder of '{bundle.path}' has no weights outside a backbone named '{BACKBONE}': "
                "give a bundle that cliprl-train wrote"
            )
        self.batch, self.blend = batch, 1.0
        self._divide(inputs[_TEXT])

    def _divide(self, text: Tensor) -> None:
        """Run what the text alone decides, and divide the rest at the first trained weight."""
        steps = self._program.steps
        of_image = _dependent(steps, {IMAGE}, ())
        trained = _dependent(steps, set(), self.weights)
        self._fixed: dict[str, Tensor] = {**self._program.known, _TEXT: text}
        with torch.no_grad():
            for step in steps:
                if not {*step.outputs} & (of_image | trained):
                    _run(step, self._fixed)
        rest = [step for step in steps if {*step.outputs} & (of_image | trained)]
        self._frozen = [step for step in rest if not {*step.outputs} & trained]
        self._trained = [step for step in rest if {*step.outputs} & trained]
        used = {x for step in self._trained for x in step.inputs if isinstance(x, str)}
        self.boundary = tuple(sorted(used - trained - set(self._fixed)))

    @torch.no_grad()
    def encode(self, images: Tensor) -> dict[str, Tensor]:
        """Run the frozen part on images uint8 (batch, H, W, 3). Returns the boundary's tensors (batch, ...) by name."""
        values: dict[str, Tensor] = {**self._fixed, IMAGE: images}
        kept = {*self.boundary, *self._fixed}
        for step in self._frozen:
            _run(step, values)
            for name in step.spent:
                if name not in kept:
                    values.pop(name, None)
        return {name: values[name] for name in self.boundary}

    def forward(self, boundary: Mapping[str, Tensor]) -> Tensor:
        """Run the trained part on the boundary's tensors. Returns logits (batch, K, h, w)."""
        values = {**self._fixed, **boundary}
        for step in self._trained:
            _run(step, values)
        return values["logits"]

    def write(self, folder: Path) -> None:
        """Write the trained weights into the encoder that lies in `folder`."""
        model = onnx.load(folder / ENCODER)
        found = {name: weight.detach().contiguous() for name, weight in zip(self.names, self.weights, strict=True)}
        for tensor in model.graph.initializer:
            if tensor.name in found:
                tensor.CopyFrom(numpy_helper.from_array(found[tensor.name].numpy(), tensor.name))
        onnx.save(model, folder / ENCODER)

    def groups(self, rate: float, backbone_rate: float) -> list[dict[str, Any]]:
        """Return the optimizer's groups: the backbone's weights with `backbone_rate` times the learning rate."""
        named = list(zip(self.names, self.weights, strict=True))
        backbone = [weight for name, weight in named if name.startswith(BACKBONE)]
        behind = [weight for name, weight in named if not name.startswith(BACKBONE)]
        return [
            {"params": behind, "lr": rate},
            *([{"params": backbone, "lr": rate * backbone_rate}] if backbone else []),
        ]


def trained_weights(model: onnx.ModelProto, blocks: int) -> list[str]:
    """Return the names of the weights behind the backbone, and of the last `blocks` operators of the backbone."""
    floats = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    operators = [node for node in model.graph.node if node.op_type in _WEIGHTED]
    rows = [[name for name in node.input[1:] if name in floats] for node in operators]
    backbone = [row for row in rows if any(name.startswith(BACKBONE) for name in row)]
    frozen = {name for row in backbone[: max(0, len(backbone) - blocks)] for name in row}
    return [name for row in rows for name in row if name not in frozen] if backbone else []


def _own_layout(weight: Tensor) -> Tensor:
    copy = weight.detach().clone()
    return copy.contiguous(memory_format=torch.channels_last) if copy.ndim == 4 else copy


def _run(step: GraphStep, values: dict[str, Tensor]) -> None:
    result = step.operator.run([values[x] if isinstance(x, str) else x for x in step.inputs], step.attributes)
    values.update(zip(step.outputs, result if isinstance(result, tuple) else (result,), strict=False))


def _dependent(steps: Sequence[GraphStep], names: set[str], tensors: Iterable[Tensor]) -> set[str]:
    """Return the names of all tensors that depend on the given ones."""
    found, known = set(names), {id(tensor) for tensor in tensors}
    for step in steps:
        if any(x in found if isinstance(x, str) else id(x) in known for x in step.inputs):
            found.update(step.outputs)
    return found
