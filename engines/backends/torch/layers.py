"""ONNX operators in torch: convolutions, pools, normalizations, and images in another size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from cliprl.engines.backends.torch.ops import Attributes, Inputs, integers, operator
from cliprl.engines.errors import EngineError


@operator("Conv")
def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, kernel = inputs[:2]
    space = kernel.ndim - 2
    pads = _pads(attributes, space)
    before, after = pads[:space], pads[space:]
    if before != after:
        image = functional.pad(image, [side for pair in zip(before[::-1], after[::-1], strict=True) for side in pair])
        before = [0] * space
    function = (functional.conv1d, functional.conv2d)[space - 1]
    bias = inputs[2] if len(inputs) > 2 else None
    ones = [1] * space
    strides, dilations = attributes.get("strides", ones), attributes.get("dilations", ones)
    return function(image, kernel, bias, strides, before, dilations, attributes.get("group", 1))


@operator("ConvTranspose")
def _conv_transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, kernel, *bias = inputs
    space, pads = kernel.ndim - 2, _pads(attributes, kernel.ndim - 2)
    if space != 2 or pads[:2] != pads[2:] or "output_shape" in attributes:
        raise EngineError(
            f"a transposed convolution with padding {pads} can't be run by torch: export the network again"
        )
    ones = [1, 1]
    return functional.conv_transpose2d(
        image,
        kernel,
        bias[0] if bias else None,
        attributes.get("strides", ones),
        pads[:2],
        attributes.get("output_padding", [0, 0]),
        attributes.get("group", 1),
        attributes.get("dilations", ones),
    )


@operator("AveragePool")
def _average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    size, pads = _window(attributes)
    ceil, counted = bool(attributes.get("ceil_mode")), bool(attributes.get("count_include_pad"))
    return functional.avg_pool2d(inputs[0], size, attributes.get("strides", [1, 1]), pads, ceil, counted)


@operator("MaxPool")
def _max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    size, pads = _window(attributes)
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    return functional.max_pool2d(inputs[0], size, strides, pads, dilations, bool(attributes.get("ceil_mode")))


@operator("GlobalAveragePool")
def _global_average(inputs: Inputs, attributes: Attributes) -> Tensor:
    return torch.mean(inputs[0], tuple(range(2, inputs[0].ndim)), keepdim=True)


@operator("LayerNormalization")
def _layer_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, scale, *bias = inputs
    shape = image.shape[attributes.get("axis", -1) :]
    return functional.layer_norm(image, shape, scale, bias[0] if bias else None, attributes.get("epsilon", 1e-5))


@operator("BatchNormalization")
def _batch_norm(inputs: Inputs, attributes: Attributes) -> Tensor:
    image, scale, bias, mean, variance = inputs
    return functional.batch_norm(image, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _window(attributes: Attributes) -> tuple[list[int], list[int]]:
    """A pool's size and its padding, the same on both sides."""
    size, pads = attributes["kernel_shape"], _pads(attributes, 2)
    if len(size) != 2 or pads[:2] != pads[2:]:
        raise EngineError(f"a pool of size {size} with padding {pads} can't be run by torch: export the network again")
    return size, pads[:2]


def _pads(attributes: Attributes, space: int) -> list[int]:
    """Padding before, then after, each axis."""
    if attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise EngineError(f"padding '{attributes['auto_pad'].decode()}' is not read here: export the network again")
    return list(attributes.get("pads", [0] * (2 * space)))


@operator("Resize", known=(1, 2, 3))
def _resize(inputs: Inputs, attributes: Attributes) -> Tensor:
    image = inputs[0]
    scales, sizes = (*inputs[2:], None, None)[:2]
    if sizes is None:
        wide = [int(size * scale) for size, scale in zip(image.shape, scales.tolist(), strict=True)]
    else:
        wide = integers(sizes) or []
    mode, corners = _interpolation(attributes)
    if image.ndim != 4 or wide[:2] != list(image.shape[:2]):
        raise EngineError(f"a resize of {tuple(image.shape)} to {wide} can't be run by torch: export the network again")
    return functional.interpolate(image, wide[2:], mode=mode, align_corners=corners)


def _interpolation(attributes: Attributes) -> tuple[str, bool | None]:
    """Torch's name of the way to resize, and whether corners meet. Raises EngineError for one that torch does not have."""
    mode = attributes.get("mode", b"nearest").decode()
    places = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "nearest" and (places, attributes.get("nearest_mode")) == ("asymmetric", b"floor"):
        return "nearest", None
    plain = not attributes.get("antialias") and places in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if plain and (mode == "linear" or (mode == "cubic" and attributes.get("cubic_coeff_a", -0.75) == -0.75)):
        return {"linear": "bilinear", "cubic": "bicubic"}[mode], places == "align_corners"
    raise EngineError(f"a resize '{mode}' by '{places}' can't be run by torch: export the network again")
