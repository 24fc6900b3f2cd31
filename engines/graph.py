"""ONNX files as GPU backends take them: read whole, in the precision asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cliprl.engines.bundle import RANGES
from cliprl.engines.errors import EngineError
from cliprl.engines.ranges import read_ranges

# The encoder's input of pictures.
IMAGE = "image"
# Half first; "f32" lets the GPU round factors to TF32 where it can.
PRECISIONS = ("f16", "f32")
# Products in eight bits, the rest in half; they need the ranges of the activations.
EIGHT_BITS = ("fp8", "int8")


def graph_in(
    path: Path, precision: str, backend: str, rewrite: Callable[[Any], None] | None = None, batch: int = 1
) -> bytes:
    """The serialised ONNX model in one of PRECISIONS or EIGHT_BITS, for `batch` pictures, `rewrite` done to it before.

    For eight bits the ranges lie beside the file. Raises EngineError for another precision, which `backend` is named for,
    where onnx is missing, or for no ONNX file, BundleError for no ranges.
    """
    if precision not in PRECISIONS + EIGHT_BITS:
        raise EngineError(
            f"precision '{precision}' is unknown to {backend}: auto, {', '.join(PRECISIONS + EIGHT_BITS)}"
        )
    try:
        from cliprl.engines.batch import set_batch
        from cliprl.engines.computed_kernels import load_graph
        from cliprl.engines.half import to_half
    except ImportError as error:
        raise EngineError(f"onnx can't be imported ({error}): pip install onnx") from error
    model = load_graph(path)
    set_batch(model, batch)
    if rewrite is not None:
        rewrite(model)
    if precision in EIGHT_BITS:
        from cliprl.engines.eight_bits import to_eight_bits

        to_eight_bits(model, precision, read_ranges(path.with_name(RANGES)))
    data: bytes = (model if precision == "f32" else to_half(model)).SerializeToString()
    return data
