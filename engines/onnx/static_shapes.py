"""The input size of an ONNX graph, fixed before a GPU backend compiles it, and the numbers that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference

from cliprl.engines.bundle.bundle import IMAGE
from cliprl.engines.errors import EngineError

# Operators that compute sizes of other tensors; with known inputs they are replaced by what they give.
SIZE_OPERATORS = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Mul", "Range", "Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze"}
)
# Passes over the graph: a size may follow from the shape of a tensor that an earlier pass made known.
PASSES = 3
# Version of the definitions of these operators.
OPSET = 18


def set_input_size(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Fix height and width of an encoder's image, or of a refiner's maps, to those in `shapes`, in place.

    Then compute what depends on them alone. Raises EngineError for a graph that is made for another size.
    """
    changed = {_set(value, shapes.get(value.name, ())) for value in model.graph.input}
    if True in changed:
        del model.graph.value_info[:]
        _set_outputs(model)
    fold_sizes(model)


def _set(value: Any, shape: tuple[int, ...]) -> bool:
    """Set the two sides of an image or map; whether they changed."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) != 4 or len(shape) != 4:
        return False
    sides = (1, 2) if value.name == IMAGE else (2, 3)
    before = [dims[axis].dim_value for axis in sides]
    for axis in sides:
        dims[axis].Clear()
        dims[axis].dim_value = shape[axis]
    return before != [shape[axis] for axis in sides]


def _set_outputs(model: Any) -> None:
    """Write the heights and widths that the outputs get now."""
    free = type(model)()
    free.CopyFrom(model)
    for value in free.graph.output:
        value.type.tensor_type.ClearField("shape")
    fold_sizes(free)
    try:
        inferred = shape_inference.infer_shapes(free, strict_mode=True, data_prop=True).graph.output
    except Exception as error:
        raise EngineError(f"the graph is made for another input size ({str(error).split(chr(10))[0][:160]})") from error
    for value, found in zip(model.graph.output, inferred, strict=True):
        for dim, new in zip(value.type.tensor_type.shape.dim, found.type.tensor_type.shape.dim, strict=False):
            if dim.HasField("dim_value") and new.HasField("dim_value"):
                dim.dim_value = new.dim_value


def fold_sizes(model: Any) -> None:
    """Replace, in place, what is computed from known sizes of tensors by its value: the graph is then that of a fixed size."""
    graph = model.graph
    for _ in range(PASSES):
        values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        known = _dimensions(model)
        found: dict[str, Any] = {}
        for node in graph.node:
            if node.op_type == "Shape":
                sizes = _sizes(node, known.get(node.input[0], ()))
                if sizes and min(sizes) > 0:
                    found[node.output[0]] = np.array(sizes, np.int64)
            elif node.op_type in SIZE_OPERATORS and any(name in found for name in node.input):
                given = [found.get(name, values.get(name)) for name in node.input if name]
                if all(array is not None for array in given):
                    found[node.output[0]] = _run(node, given)
        if not found:
            return
        kept = [node for node in graph.node if node.output[0] not in found]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(kept)
        used = {name for node in kept for name in node.input}
        graph.initializer.extend(numpy_helper.from_array(found[name], name) for name in found if name in used)


def _dimensions(model: Any) -> dict[str, tuple[int, ...]]:
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        value.name: tuple(d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim)
        for value in [*graph.input, *graph.output, *graph.value_info]
    }


def _sizes(node: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    bounds: dict[str, Any] = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return shape[bounds.get("start", 0) : bounds.get("end")]


def _run(node: Any, given: list[Any]) -> Any:
    """Return what a node gives for these inputs."""
    from onnx.reference import ReferenceEvaluator

    arrays: dict[str, Any] = dict(zip((str(name) for name in node.input if name), given, strict=True))
    inputs: list[Any] = []
    for key, array in arrays.items():
        inputs.append(helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape))
    output = helper.make_tensor_value_info(node.output[0], TensorProto.INT64, None)
    graph = helper.make_graph([node], "size", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    outputs: Any = ReferenceEvaluator(model).run(None, arrays)
    return np.asarray(outputs[0])
