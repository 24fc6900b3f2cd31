"""TensorRT on an NVIDIA GPU: the package `tensorrt` 10.12 to 11, or `tensorrt_rtx`, of which each is a backend."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from cliprl.engines.engine import Engine, Probe, Request
from cliprl.engines.errors import EngineError
from cliprl.engines.nvidia import find_driver
from cliprl.engines.tensorrt_build import Plan, build_plan
from cliprl.engines.tensorrt_probe import INSTALL, cuda_of, probe_tensorrt

PRECISIONS = ("f16", "f32")


class TensorRt:
    """One of the two packages as a backend. Blobs are plans, tied to the package's version and the GPU's generation."""

    def __init__(self, package: str) -> None:
        self.name = package

    def probe(self) -> Probe:
        """Whether the package is installed, and driver, GPU and torch are there for it to run."""
        return probe_tensorrt(self.name)

    def precisions(self, quantised: bool = False) -> tuple[str, ...]:
        """ "f16" first; "f32" lets the GPU round factors to TF32 where it can. A bundle's int8 encoder is OpenVINO's alone."""
        return PRECISIONS

    def identity(self) -> Mapping[str, str]:
        """The package's version, the driver's, and the GPU."""
        driver = find_driver()
        gpus = driver.gpus if driver else ()
        return {
            self.name: f"{import_module(self.name).__version__} for CUDA {cuda_of(self.name)}",
            "driver": driver.version if driver else "none",
            "gpu": f"{gpus[0].name} {gpus[0].target}" if gpus else "none",
        }

    def build(self, request: Request) -> bytes:
        """Build for the GPU of this machine."""
        return make_plan(self.name, request.onnx, request.precision, request.shapes).data

    def load(self, blob: bytes, request: Request) -> Engine:
        """Make a plan ready to run. Raises EngineError with the reason where TensorRT refuses it."""
        from cliprl.engines.tensorrt_engine import TensorRtEngine

        return TensorRtEngine(self.name, blob, request.precision, request.buffers)


BACKENDS = {name: TensorRt(name) for name in ("tensorrt", "tensorrt_rtx")}


def make_plan(
    package: str, onnx: Path, precision: str, usual: Mapping[str, tuple[int, ...]], target: str | None = None
) -> Plan:
    """Build an ONNX file in "f16" or "f32" for `target`, such as "sm86", or for this machine's GPU (None).

    Ahead of time, for a target, only `tensorrt_rtx` builds; then no GPU is needed here. `usual` are the shapes to tune for.
    Raises UsageError for an unknown target, EngineError for an unknown precision, a missing package or a refused network.
    """
    if precision not in PRECISIONS:
        raise EngineError(f"precision '{precision}' is unknown to {package}: auto, {', '.join(PRECISIONS)}")
    try:
        import_module(package)
    except ImportError as error:
        raise EngineError(f"{package} can't be imported ({error}): {INSTALL[package]}") from error
    return build_plan(package, _graph(onnx, precision), usual, target)


def _graph(path: Path, precision: str) -> bytes:
    """The ONNX file as TensorRT takes it, serialised."""
    try:
        from cliprl.engines.computed_kernels import load_graph, replace_computed_kernels
        from cliprl.engines.half import to_half
    except ImportError as error:
        raise EngineError(f"onnx can't be imported ({error}): pip install onnx") from error
    model = load_graph(path)
    replace_computed_kernels(model)
    data: bytes = (to_half(model) if precision == "f16" else model).SerializeToString()
    return data
