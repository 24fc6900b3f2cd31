"""OpenVINO on the CPU: the default engine, and the only one of the light install."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cliprl.engines.engine import Probe
from cliprl.engines.errors import EngineError

NAME = "openvino"
PRECISIONS = ("auto", "f32", "bf16")


def probe() -> Probe:
    """Whether OpenVINO is installed and has a CPU plugin."""
    try:
        import openvino
    except ImportError as error:
        return Probe(NAME, False, f"openvino can't be imported ({error}): pip install openvino")
    if "CPU" not in openvino.Core().available_devices:
        return Probe(
            NAME, False, "openvino finds no CPU plugin: install openvino from PyPI for this machine's architecture"
        )
    return Probe(NAME, True, f"openvino {openvino.__version__.split('-')[0]}")


def native_precision(core: Any) -> str:
    """The fastest floating-point type that the CPU computes natively: "bf16" (AMX or AVX512-BF16) or "f32"."""
    return "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


class OpenVinoEngine:
    """One compiled network with a few infer requests, used in turn; not for use by two threads at once."""

    backend = NAME

    def __init__(self, compiled: Any, precision: str, buffers: int) -> None:
        self.precision = precision
        self._requests = cycle([compiled.create_infer_request() for _ in range(buffers)])
        self.inputs = {port.get_any_name(): tuple(port.shape) for port in compiled.inputs}
        self._outputs = tuple(port.get_any_name() for port in compiled.outputs)

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """Run once. C-contiguous inputs are read in place; outputs are views, valid until `buffers` more runs."""
        results = next(self._requests).infer(dict(inputs), share_inputs=True, share_outputs=True)
        return {name: results[i] for i, name in enumerate(self._outputs)}


def compile(
    onnx: Path, *, precision: str, threads: int, shapes: Mapping[str, tuple[int, ...]], buffers: int
) -> OpenVinoEngine:
    """Compile for latency. Raises EngineError for an unknown precision or a file OpenVINO can't read."""
    import openvino

    if precision not in PRECISIONS:
        raise EngineError(f"precision '{precision}' is unknown to openvino: one of {', '.join(PRECISIONS)}")
    core = openvino.Core()
    chosen = native_precision(core) if precision == "auto" else precision
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": chosen, "NUM_STREAMS": 1}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(onnx)
        if shapes:
            model.reshape({name: list(shape) for name, shape in shapes.items()})
        compiled = core.compile_model(model, "CPU", hints)
    except RuntimeError as error:
        raise EngineError(f"openvino can't compile {onnx}: {str(error).splitlines()[-1]}") from error
    return OpenVinoEngine(compiled, chosen, buffers)
