"""How many images an encoder's ONNX graph takes at a time: fixed before a GPU backend compiles it.

TensorRT compares pixels with class texts through a kernel of as many outputs as there are pixels, whose number must be known.
"""

from __future__ import annotations

from typing import Any

from onnx import shape_inference

from cliprl.engines.bundle.bundle import IMAGE
from cliprl.engines.errors import EngineError


def set_batch(model: Any, count: int) -> None:
    """Make the graph take `count` images at a time, in place; a refiner, which has no image, is left as it is.

    Raises EngineError for a graph that is made for another number, as one with a reshape to one image.
    """
    graph = model.graph
    image = next((value for value in graph.input if value.name == IMAGE), None)
    if image is None or _first(image).dim_value == count:
        return
    for value in (image, *graph.output):
        _first(value).Clear()
        _first(value).dim_value = count
    del graph.value_info[:]
    if not _agrees(model, count):
        raise EngineError(
            f"the encoder can't take {count} images at a time: its graph is made for another number; export it again"
        )


def _first(value: Any) -> Any:
    return value.type.tensor_type.shape.dim[0]


def _agrees(model: Any, count: int) -> bool:
    """Whether the outputs have that many rows where it is left to the graph to say."""
    outputs = [value.name for value in model.graph.output]
    free = type(model)()
    free.CopyFrom(model)
    for value in free.graph.output:
        value.type.tensor_type.ClearField("shape")
    try:
        inferred = shape_inference.infer_shapes(free, strict_mode=True, data_prop=True)
    except Exception:
        return False
    found = {value.name: value for value in inferred.graph.output}
    return all(len(found[n].type.tensor_type.shape.dim) and _first(found[n]).dim_value == count for n in outputs)
