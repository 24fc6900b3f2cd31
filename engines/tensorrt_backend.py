"""TensorRT on an NVIDIA GPU: the package `tensorrt` 10.12 to 11, or `tensorrt_rtx`, of which each is a backend."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cliprl.engines.engine import Engine, Probe, Request
from cliprl.engines.errors import EngineError
from cliprl.engines.graph import PRECISIONS, graph_in
from cliprl.engines.nvidia import find_driver, identity
from cliprl.engines.tensorrt_build import Plan, build_plan
from cliprl.engines.tensorrt_probe import INSTALL, cuda_of, probe_tensorrt

TURING = "sm75"


class TensorRt:
    """One of the two packages as a backend. Blobs are plans, tied to the package's version and the GPU's generation."""

    def __init__(self, package: str) -> None:
        self.name = package

    def probe(self) -> Probe:
        """Whether the package is installed, and driver, GPU and torch are there for it to run."""
        return probe_tensorrt(self.name)

    def precisions(self, quantised: bool = False) -> tuple[str, ...]:
        """ "f16" first. A bundle's int8 encoder is OpenVINO's alone."""
        return PRECISIONS

    def identity(self) -> Mapping[str, str]:
        """The package's version, the driver's, and the GPU."""
        version: str = import_module(self.name).__version__
        return {self.name: f"{version} for CUDA {cuda_of(self.name)}", **identity()}

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
    try:
        import_module(package)
    except ImportError as error:
        raise EngineError(f"{package} can't be imported ({error}): {INSTALL[package]}") from error
    rewrite = partial(_rewrite, products=package == "tensorrt_rtx" and precision == "f32" and _is_turing(target))
    return build_plan(package, graph_in(onnx, precision, package, rewrite), usual, target)


def _rewrite(model: Any, *, products: bool) -> None:
    """Change what TensorRT can't take: kernels of unknown size and, on Turing, `products` of matrices in FP32."""
    from cliprl.engines.computed_kernels import replace_computed_kernels
    from cliprl.engines.matrix_products import replace_matrix_products

    replace_computed_kernels(model)
    if products:
        replace_matrix_products(model)


def _is_turing(target: str | None) -> bool:
    """Whether a plan is for a GPU of that generation, which for None is this machine's."""
    driver = find_driver() if target is None else None
    return target == TURING or bool(driver and driver.gpus and driver.gpus[0].target == TURING)
