"""What ONNX Runtime makes of a model: the yardstick for whatever else runs it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def outputs_of(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Every output by name, in 32 bits on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(inputs)), strict=True))


def run_by_torch(model: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The same by this program's torch engine, on the CPU."""
    from cliprl.engines.backends.torch.engine import TorchEngine
    from cliprl.engines.backends.torch.graph import Graph

    engine = TorchEngine(Graph(model.SerializeToString(), "cpu"), "f32", 1)
    return {name: value.numpy() for name, value in engine.run(inputs).items()}
