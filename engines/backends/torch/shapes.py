"""ONNX operators in torch that move elements and compute nothing: shapes, pieces, look-ups."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cliprl.engines.backends.torch.ops import Attributes, Inputs, integers, operator
from cliprl.engines.errors import EngineError

# Element types by their number in ONNX.
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


@operator("Cast")
def _cast(inputs: Inputs, attributes: Attributes) -> Tensor:
    converted: Tensor = inputs[0].to(DTYPES[attributes["to"]])
    return converted


@operator("Shape")
def _shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.tensor(tuple(inputs[0].shape)[attributes.get("start", 0) : attributes.get("end")], dtype=torch.int64)


@operator("Reshape", known=(1,))
def _reshape(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, sizes = inputs[0], integers(inputs[1]) or []
    if not attributes.get("allowzero"):
        sizes = [size or image.shape[axis] for axis, size in enumerate(sizes)]
    reshaped: Tensor = image.reshape(sizes)
    return reshaped


@operator("Flatten")
def _flatten(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, axis = inputs[0], attributes.get("axis", 1)
    rows = torch.Size(image.shape[:axis]).numel()
    flat: Tensor = image.reshape(rows, -1)
    return flat


@operator("Transpose")
def _transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    turned: Tensor = inputs[0].permute(attributes.get("perm", tuple(reversed(range(inputs[0].ndim)))))
    return turned


@operator("Unsqueeze", known=(1,))
def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    image: Tensor = inputs[0]
    axes = integers(inputs[1]) or []
    for axis in sorted(axis % (image.ndim + len(axes)) for axis in axes):
        image = image.unsqueeze(axis)
    return image


@operator("Squeeze", known=(1,))
def _squeeze(inputs: Inputs, attributes: Attributes) -> Tensor:
    axes = integers(inputs[1]) if len(inputs) > 1 else None
    squeezed: Tensor = inputs[0].squeeze() if axes is None else inputs[0].squeeze(axes)
    return squeezed


@operator("Expand", known=(1,))
def _expand(inputs: Inputs, attributes: Attributes) -> Tensor:
    expanded: Tensor = inputs[0].expand(np.broadcast_shapes(inputs[0].shape, tuple(integers(inputs[1]) or [])))
    return expanded


@operator("Tile", known=(1,))
def _tile(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.tile(inputs[0], integers(inputs[1]) or [])


@operator("Concat")
def _concat(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.cat(list(inputs), attributes["axis"])


@operator("Split", known=(1,))
def _split(inputs: Inputs, attributes: Attributes) -> tuple[Tensor, ...]:
    image, axis = inputs[0], attributes.get("axis", 0)
    sizes = integers(inputs[1]) if len(inputs) > 1 else None
    pieces: tuple[Tensor, ...] = image.split(sizes or -(-image.shape[axis] // attributes["num_outputs"]), axis)
    return pieces


@operator("Slice", known=(1, 2, 3, 4))
def _slice(inputs: Inputs, attributes: Attributes) -> Tensor:
    image = inputs[0]
    starts, ends, axes, steps = (integers(x) for x in (*inputs[1:], None, None)[:4])
    starts, ends = starts or [], ends or []
    chosen = [slice(None)] * image.ndim
    for start, end, axis, step in zip(
        starts, ends, axes or range(len(starts)), steps or [1] * len(starts), strict=True
    ):
        if step < 1:
            raise EngineError(f"a slice that steps by {step} can't be run by torch: export the network again")
        chosen[axis] = slice(start, end, step)
    piece: Tensor = image[tuple(chosen)]
    return piece


@operator("Pad", known=(1, 2, 3))
def _pad(inputs: Inputs, attributes: Attributes) -> Tensor:
    image = inputs[0]
    pads, value, axes = (*inputs[1:], None, None)[:3]
    sides = integers(pads) or []
    places = integers(axes) or list(range(image.ndim))
    both = [(0, 0)] * image.ndim
    for i, axis in enumerate(places):
        both[axis] = (sides[i], sides[i + len(places)])
    mode = attributes.get("mode", b"constant").decode()
    if mode == "constant":
        flat = [side for pair in reversed(both) for side in pair]
        return functional.pad(image, flat, value=0 if value is None else value.item())
    inner = [side for pair in reversed(both[2:]) for side in pair]
    return functional.pad(image, inner, mode={"edge": "replicate"}.get(mode, mode))


@operator("Gather")
def _gather(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, places = inputs
    axis = attributes.get("axis", 0) % image.ndim
    found = image.index_select(axis, _from_start(places, image.shape[axis]).reshape(-1))
    shaped: Tensor = found.reshape(*image.shape[:axis], *places.shape, *image.shape[axis + 1 :])
    return shaped


@operator("GatherElements")
def _gather_elements(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, places = inputs
    axis = attributes.get("axis", 0)
    return torch.gather(image, axis, _from_start(places, image.shape[axis]))


@operator("GatherND")
def _gather_nd(inputs: Inputs, attributes: Attributes) -> Tensor:
    if attributes.get("batch_dims"):
        raise EngineError("GatherND with batch_dims can't be run by torch: export the network again")
    found: Tensor = inputs[0][inputs[1].unbind(-1)]
    return found


def _from_start(places: Any, size: int) -> Tensor:
    """Indices counted from the start, where negative ones count from the end."""
    return torch.where(places < 0, places + size, places).to(torch.int64)


@operator("ConstantOfShape", known=(0,))
def _constant_of_shape(inputs: Inputs, attributes: Attributes) -> Tensor:
    value = attributes.get("value", torch.zeros(1))
    return torch.full(integers(inputs[0]) or [], value.item(), dtype=value.dtype)


@operator("Range", known=(0, 1, 2))
def _range(inputs: Inputs, attributes: Attributes) -> Tensor:
    start, limit, step = (x.item() for x in inputs)
    return torch.arange(start, limit, step, dtype=inputs[0].dtype)
