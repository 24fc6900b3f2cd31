"""Networks as ONNX files: the encoder, the refiner, and the text tower."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from cliprl.engines import MAX_CLASSES
from cliprl.engines.bundle.bundle import ENCODER, PROMPT_HEAD, REFINER, TEXT
from cliprl.engines.promptable.hints import HINTS
from cliprl.engines.promptable.prompt_maps import CHANNELS
from cliprl.models.network.network import ClipSegmenter

OPSET = 18
# Weights of at least this size are stored in FP16; smaller ones do not pay for a cast.
LARGE = 1024


def write_networks(network: ClipSegmenter, refiner: nn.Module, text: Tensor, folder: Path) -> None:
    """Write the encoder, for any number of images, and the refiner, for one; both for any number of classes from 2.

    `text` (K, E) is an example of the classes' embeddings. The graphs state the input size of the network; those of a
    convolutional one can be reshaped to another, because nothing in them depends on it.
    """
    image = example_image(*network.size)
    features, logits = network(image, text)
    classes = torch.export.Dim("classes", min=2, max=MAX_CLASSES)
    shapes: dict[str, Any] = {"image": {0: torch.export.Dim("batch", min=1)}, "text": {0: classes}}
    # Two images: from one, the exporter would infer a fixed batch of 1.
    _export(
        network, {"image": image.repeat(2, 1, 1, 1), "text": text}, folder / ENCODER, ["features", "logits"], shapes
    )
    write_refiner(refiner, features, logits, text, folder)


def write_refiner(refiner: nn.Module, features: Tensor, logits: Tensor, text: Tensor, folder: Path) -> None:
    """Write the refiner; `features` (1, D, h, w), `logits` (1, K, h, w) and `text` (K, E) are examples."""
    classes, grid = torch.export.Dim("classes", min=2, max=MAX_CLASSES), _grid()
    inputs = {"features": features, "logits": logits, "base": logits.clone(), "prior": logits.clone(), "text": text}
    maps = {name: {1: classes, **grid} for name in ("logits", "base", "prior")}
    shapes: dict[str, Any] = {"features": grid, **maps, "text": {0: classes}}
    _export(refiner, inputs, folder / REFINER, ["refined", "moved"], shapes)


def _grid() -> dict[int, Any]:
    """Return the open height and width of maps (1, C, h, w)."""
    return {axis: torch.export.Dim(name, min=8, max=1024) for axis, name in ((2, "height"), (3, "width"))}


def write_text_tower(network: ClipSegmenter, folder: Path) -> None:
    """Write the text tower, from `tokens` int64 (n, context) to `embeddings` float32 (n, E) of unit length.

    Its weights are stored in half precision and widened when they are read: the table of tokens is most of it.
    """
    tokens = torch.zeros(3, network.context, dtype=torch.long)
    tokens[:, 1] = 1
    shapes = {"tokens": {0: torch.export.Dim("prompts", min=1, max=4096)}}
    _export(_TextTower(network), {"tokens": tokens}, folder / TEXT, ["embeddings"], shapes)
    model = onnx.load(folder / TEXT)
    _store_in_half(model)
    onnx.save(model, folder / TEXT)


def write_prompt_head(head: nn.Module, features: NDArray[np.float32], image: NDArray[np.uint8], folder: Path) -> None:
    """Write the promptable head, for one image. `features` (D, h, w) and `image` uint8 (H, W, 3) are examples."""
    grid = features.shape[1:]
    inputs = {
        "features": torch.from_numpy(features[None]),
        "image": torch.from_numpy(image[None]),
        "prompts": torch.zeros(1, CHANNELS, *grid),
        "logits": torch.zeros(1, 1, *grid),
        "hints": torch.zeros(1, HINTS, *grid),
    }
    stride, maps = image.shape[0] // grid[0], _grid()
    shapes: dict[str, Any] = dict.fromkeys(("features", "prompts", "logits", "hints"), maps)
    shapes["image"] = {1: stride * maps[2], 2: stride * maps[3]}
    _export(head, inputs, folder / PROMPT_HEAD, ["mask"], {name: shapes[name] for name in inputs})


def example_image(height: int, width: int) -> Tensor:
    """Return a smooth random image, uint8 (1, H, W, 3): pure noise would only measure rounding."""
    coarse = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(0))
    fine = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return (fine.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


class _TextTower(nn.Module):
    """The text encoder of a network, alone."""

    def __init__(self, network: ClipSegmenter) -> None:
        super().__init__()
        # Without the image encoder.
        self.clip = copy.copy(network.clip)
        self.clip._modules = {k: m for k, m in network.clip._modules.items() if k != "visual"}

    def forward(self, tokens: Tensor) -> Tensor:
        embeddings: Tensor = self.clip.encode_text(tokens, normalize=True)
        return embeddings


def _export(
    module: nn.Module, inputs: dict[str, Tensor], path: Path, outputs: list[str], shapes: dict[str, Any]
) -> None:
    plain = copy.deepcopy(module).to(memory_format=torch.contiguous_format).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    model = onnx.load(path)
    _state_sizes(model, inputs)
    strip_sources(model)
    onnx.save(model, path)


def _state_sizes(model: Any, inputs: dict[str, Tensor]) -> None:
    """State the heights and widths of the examples at inputs and outputs. Only the other open sizes stay open."""
    sizes: dict[str, int] = {}
    for value in model.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, inputs[value.name].shape, strict=True):
            if any(word in dim.dim_param for word in ("height", "width")):
                sizes[dim.dim_param] = size
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    del model.graph.value_info[:]


def strip_sources(model: Any) -> None:
    """Remove the exporter's notes from a graph: stack traces with the paths of the machine that exported it."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _store_in_half(model: Any) -> None:
    """Keep large float weights in FP16, each behind a cast to FP32: arithmetic stays as it was."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor) if tensor.data_type == TensorProto.FLOAT else np.empty(0)
        if values.size >= LARGE:
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
            casts.append(helper.make_node("Cast", [f"{name}/half"], [name], name=f"{name}/cast", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
