"""ONNX files as GPU backends take them: read whole, in the precision asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cliprl.engines.errors import EngineError

# Half first; "f32" lets the GPU round factors to TF32 where it can.
PRECISIONS = ("f16", "f32")


def graph_in(path: Path, precision: str, backend: str, rewrite: Callable[[Any], None] | None = None) -> bytes:
    """The serialised ONNX model in "f16" or "f32", `rewrite` done to it before.

    Raises EngineError for another precision, which `backend` is named for, where onnx is missing, or for no ONNX file.
    """
    if precision not in PRECISIONS:
        raise EngineError(f"precision '{precision}' is unknown to {backend}: auto, {', '.join(PRECISIONS)}")
    try:
        from cliprl.engines.computed_kernels import load_graph
        from cliprl.engines.half import to_half
    except ImportError as error:
        raise EngineError(f"onnx can't be imported ({error}): pip install onnx") from error
    model = load_graph(path)
    if rewrite is not None:
        rewrite(model)
    data: bytes = (to_half(model) if precision == "f16" else model).SerializeToString()
    return data
