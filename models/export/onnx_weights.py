"""Read the weights of a network back from the ONNX files of its bundle, the inverse of `onnx_export`.

The exporter keeps the names of weights but for two: it folds a batch normalization into the convolution before it, and stores
the weight of a linear layer transposed and without its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

# Ends of names: a weight that is stored in half, and the bias that a folded normalization leaves to a convolution.
HALF, FOLDED = "/half", "_bias"


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights of an exported graph, float32, by the names that they have in the network.

    The bias of a folded normalization is named after its convolution's weight, with `FOLDED` at its end.
    """
    graph = onnx.load(path).graph
    found = {
        tensor.name.removesuffix(HALF): torch.tensor(numpy_helper.to_array(tensor)).float()
        for tensor in graph.initializer
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    }
    after = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in found:
            # Zeros are left out, and equal tensors are stored under the name of one.
            bias = found[node.input[2]] if len(node.input) > 2 else torch.zeros(len(found[node.input[1]]))
            found[f"{node.input[1]}{FOLDED}"] = bias
            found.setdefault(f"{node.input[1].removesuffix('weight')}bias", bias)
        if node.op_type in ("MatMul", "Gemm") and "." not in node.input[1] and node.input[1] in found:
            added = (
                node.input[2:]
                if node.op_type == "Gemm"
                else after[node.output[0]].input
                if node.output[0] in after
                else ()
            )
            for bias in added:
                if bias in found and bias.endswith("bias"):
                    found[f"{bias.removesuffix('bias')}weight"] = found[node.input[1]].T.contiguous()
    if (scale := _scale(graph)) in found:
        found["scale"] = found[scale]
    return found


def _scale(graph: onnx.GraphProto) -> str:
    """Return the name of the number that the classes' embeddings are multiplied by; "" without one."""
    products = (set(node.input) for node in graph.node if node.op_type == "Mul" and "text" in node.input)
    return next((name for inputs in products for name in inputs - {"text"}), "")


def fill_normalizations(network: nn.Module, folded: Mapping[str, Tensor], *inputs: Tensor) -> set[str]:
    """Give the normalizations of a network what the exporter folded into the convolutions, in one run on `inputs`.

    folded: the biases, by name, that `read_weights` returns. The statistics of a normalization are lost; those of this run take
    their place, and its scale and bias make up for them. Returns the names of the weights that it filled.
    """
    names = {module: name for name, module in network.named_modules()}
    filled: set[str] = set()
    made: dict[int, tuple[Tensor, Tensor]] = {}

    def remember(bias: Tensor, output: Tensor) -> None:
        made[id(output)] = output, bias

    def fill(module: nn.BatchNorm2d, values: Tensor) -> None:
        if id(values) not in made:
            return
        mean, variance = values.mean((0, 2, 3)), values.var((0, 2, 3), unbiased=False)
        module.running_mean, module.running_var = mean, variance
        module.weight.copy_((variance + module.eps).sqrt())
        module.bias.copy_(made[id(values)][1] + mean)
        filled.update((f"{names[module]}.weight", f"{names[module]}.bias"))

    hooks = []
    for name, module in network.named_modules():
        bias = folded.get(f"{name}.weight{FOLDED}")
        if bias is not None:
            hooks.append(module.register_forward_hook(lambda _m, _x, output, bias=bias: remember(bias, output)))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(lambda module, x: fill(module, x[0])))
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return filled


def used_weights(network: nn.Module, outputs: Sequence[Tensor]) -> set[str]:
    """Return the names of the parameters that `outputs` of a network were computed from."""
    parameters = dict(network.named_parameters())
    total = torch.stack([output.sum() for output in outputs]).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
