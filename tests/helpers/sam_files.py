"""Small ONNX pairs with the interface of the SAM family whose network returns its own box."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
# Side of the network's input and of its small masks, as in SAM; channels of the embedding.
SIDE, SMALL, CHANNELS = 256, 64, 4


def write_sam(folder: Path, kind: str = "sam", channels: int = CHANNELS, side: int = SIDE) -> str:
    """Write an encoder and a decoder of a kind ("sam", "raw", "sam2", "efficient") and return their specification."""
    encoder, decoder = folder / f"{kind}-encoder.onnx", folder / f"{kind}-decoder.onnx"
    _save(encoder, *_encoder(kind, channels, side))
    _save(decoder, *_decoder(kind, channels, side))
    return f"sam:{encoder},{decoder}"


def _encoder(kind: str, channels: int, side: int) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
    name, shape = {
        "efficient": ("batched_images", [1, 3, "height", "width"]),
        "raw": ("input_image", ["height", "width", 3]),
    }.get(kind, ("input_image", [1, 3, side, side]))
    axes = [0, 1, 2] if kind == "raw" else [0, 1, 2, 3]
    nodes = [helper.make_node("ReduceMean", [name, "axes"], ["mean"], keepdims=0)]
    outputs = []
    for output, grid in _embeddings(kind, side).items():
        shape_name = f"{output}_shape"
        nodes.append(helper.make_node("Expand", ["mean", shape_name], [output]))
        outputs.append((output, [1, channels, grid, grid]))
    constants = {"axes": np.int64(axes)}
    constants |= {f"{output}_shape": np.int64(shape) for output, shape in outputs}
    return nodes, [(name, FLOAT, shape)], [(output, FLOAT, shape) for output, shape in outputs], constants


def _embeddings(kind: str, side: int) -> dict[str, int]:
    if kind == "sam2":
        return {"high_res_feats_0": side // 4, "high_res_feats_1": side // 8, "image_embed": side // 16}
    return {"image_embeddings": side // 16}


def _decoder(kind: str, channels: int, side: int) -> tuple[list[Any], list[Any], list[Any], dict[str, Any]]:
    """Signed distance of each place to the box's sides, positive inside; three candidates, of which the middle one is right."""
    efficient = kind == "efficient"
    small = side // 4
    prefix, points_shape = ("batched_", [1, 1, "n", 2]) if efficient else ("", [1, "n", 2])
    inputs = [(name, FLOAT, [1, channels, grid, grid]) for name, grid in _embeddings(kind, side).items()]
    inputs += [(f"{prefix}point_coords", FLOAT, points_shape), (f"{prefix}point_labels", FLOAT, points_shape[:-1])]
    if not efficient:
        inputs += [("mask_input", FLOAT, [1, 1, small, small]), ("has_mask_input", FLOAT, [1])]
    if kind != "sam2":
        inputs.append(("orig_im_size", TensorProto.INT64 if efficient else FLOAT, [2]))
    # EfficientSAM is given positions in the image: here they are brought to the network's square.
    place = (np.arange(small, dtype=np.float32) + 0.5) * 4
    constants = {
        "flat": np.int64([-1, 2]), "flat_labels": np.int64([-1, 1]), "two": np.float32(2), "three": np.float32(3),
        "zero": np.int64([0]), "one": np.int64([1]), "end": np.int64([2]), "axis": np.int64([1]), "rows": np.int64([0]),
        "x": place.reshape(1, -1), "y": place.reshape(-1, 1), "side": np.float32(side),
        "offsets": np.float32([-9, 0, 9]).reshape(1, 3, 1, 1), "scores": np.float32([[0.5, 0.9, 0.6]]),
        "mask_shape": np.int64([1, 1, 3, small, small] if efficient else [1, 3, small, small]),
        "swap": np.int64([1, 0]),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Reshape", [f"{prefix}point_coords", "flat"], ["raw_points"]),
        node("Reshape", [f"{prefix}point_labels", "flat_labels"], ["labels"]),
    ]
    if efficient:
        nodes += [
            node("Cast", ["orig_im_size"], ["size"], to=FLOAT),
            node("Gather", ["size", "swap"], ["size_xy"], axis=0),
            node("Div", ["raw_points", "size_xy"], ["share"]),
            node("Mul", ["share", "side"], ["points"]),
        ]
    else:
        nodes.append(node("Identity", ["raw_points"], ["points"]))
    for corner, label in (("first", "two"), ("last", "three")):
        nodes += [
            node("Equal", ["labels", label], [f"is_{corner}"]),
            node("Cast", [f"is_{corner}"], [f"weight_{corner}"], to=FLOAT),
            node("Mul", ["points", f"weight_{corner}"], [f"weighted_{corner}"]),
            node("ReduceSum", [f"weighted_{corner}", "rows"], [corner], keepdims=1),
            node("Slice", [corner, "zero", "one", "axis"], [f"{corner}_x"]),
            node("Slice", [corner, "one", "end", "axis"], [f"{corner}_y"]),
        ]
    nodes += [
        node("Sub", ["x", "first_x"], ["left"]), node("Sub", ["last_x", "x"], ["right"]),
        node("Sub", ["y", "first_y"], ["above"]), node("Sub", ["last_y", "y"], ["below"]),
        node("Min", ["left", "right", "above", "below"], ["distance"]),
        node("Add", ["distance", "offsets"], ["three_masks"]),
        node("Reshape", ["three_masks", "mask_shape"], ["masks"]), node("Identity", ["scores"], ["iou_predictions"]),
    ]  # fmt: skip
    outputs = [("masks", FLOAT, None), ("iou_predictions", FLOAT, None)]
    if kind in ("sam", "raw"):
        nodes.append(node("Identity", ["masks"], ["low_res_masks"]))
        outputs.append(("low_res_masks", FLOAT, None))
    return nodes, inputs, outputs, constants


def _save(path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]) -> None:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(*spec) for spec in inputs],
        [helper.make_tensor_value_info(*spec) for spec in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
