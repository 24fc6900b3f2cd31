"""Load an ONNX file for a GPU backend in a given precision, and fix how many images its graph takes at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cliprl.engines.bundle.bundle import IMAGE, RANGES_FILE
from cliprl.engines.errors import EngineError
from cliprl.engines.onnx.calibration import read_ranges

# Half first; "f32" lets the GPU round factors to TF32 where it can.
FLOAT_PRECISIONS = ("f16", "f32")
# Products in eight bits, the rest in half; they need the ranges of the activations.
EIGHT_BITS = ("fp8", "int8")


def load_graph_as(
    path: Path,
    precision: str,
    backend: str,
    rewrite: Callable[[Any], None] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> bytes:
    """The serialized ONNX model in one of PRECISIONS or EIGHT_BITS, for inputs of `shapes`, `rewrite` done to it before.

    For eight bits the ranges lie beside the file. Raises EngineError for another precision, which `backend` is named for,
    where onnx is missing, or for no ONNX file, BundleError for no ranges.
    """
    if precision not in FLOAT_PRECISIONS + EIGHT_BITS:
        raise EngineError(
            f"precision '{precision}' is unknown to {backend}: auto, {', '.join(FLOAT_PRECISIONS + EIGHT_BITS)}"
        )
    try:
        from cliprl.engines.onnx.dynamic_conv import load_graph
        from cliprl.engines.onnx.fp16 import to_fp16
        from cliprl.engines.onnx.static_shapes import set_input_size
    except ImportError as error:
        raise EngineError(f"onnx can't be imported ({error}): pip install onnx") from error
    model = load_graph(path)
    set_input_size(model, shapes or {})
    set_batch(model, (shapes or {}).get(IMAGE, (1,))[0])
    if rewrite is not None:
        rewrite(model)
    if precision in EIGHT_BITS:
        from cliprl.engines.onnx.quantize import quantize_graph

        quantize_graph(model, precision, read_ranges(path.with_name(RANGES_FILE)))
    data: bytes = (model if precision == "f32" else to_fp16(model)).SerializeToString()
    return data


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
    from onnx import shape_inference

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
