"""Load an ONNX file for a GPU backend in a given precision."""

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
        from cliprl.engines.onnx.batch import set_batch
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
