"""TensorRT on an NVIDIA GPU: the package `tensorrt` 10.12 to 11, or `tensorrt_rtx`, of which each is a backend."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cliprl.engines.backends.engine import Engine, Probe, Request
from cliprl.engines.backends.gpu_discovery import find_driver, gpu_identity
from cliprl.engines.backends.registry import register_backend
from cliprl.engines.backends.tensorrt.build import BUILD_SETTINGS, PLAN_TARGETS, TensorRtPlan, build_plan
from cliprl.engines.backends.tensorrt.caches import runtime_path, timing_path
from cliprl.engines.backends.tensorrt.probe import INSTALL_COMMANDS, cuda_of, probe_tensorrt
from cliprl.engines.bundle.bundle import ENCODER, RANGES_FILE
from cliprl.engines.errors import EngineError, UsageError
from cliprl.engines.onnx.load import EIGHT_BITS, FLOAT_PRECISIONS, load_graph_as

TURING = "sm75"
FP8 = "fp8"
OLDEST_FP8 = 89
KNOWN = (FLOAT_PRECISIONS[0], *EIGHT_BITS, FLOAT_PRECISIONS[1])


class TensorRt:
    """One of the two packages as a backend. Blobs are plans, tied to the package's version and the GPU's generation."""

    known_precisions = KNOWN

    def __init__(self, package: str) -> None:
        self.name = package

    def probe(self) -> Probe:
        """Whether the package is installed, and driver, GPU and torch are there for it to run."""
        return probe_tensorrt(self.name)

    def precisions(self, files: Collection[str] = ()) -> tuple[str, ...]:
        """ "f16" first, for it is the most accurate of the fast ones; "fp8" and "int8" where GPU and bundle allow."""
        return precisions_of(_this_gpu(), files)

    def lacks(self, precision: str, files: Collection[str]) -> str:
        """Why a precision can't be had here; "" where it can."""
        return why_unsupported(precision, _this_gpu(), RANGES_FILE in files)

    def sources(self, precision: str) -> tuple[str, ...]:
        """Eight bits need the ranges too."""
        return (ENCODER, RANGES_FILE) if precision in EIGHT_BITS else (ENCODER,)

    def identity(self) -> Mapping[str, str]:
        """The package's version, the driver's, and the GPU."""
        version: str = import_module(self.name).__version__
        return {
            self.name: f"{version} for CUDA {cuda_of(self.name)}",
            "build settings": BUILD_SETTINGS,
            **gpu_identity(),
        }

    def build(self, request: Request) -> bytes:
        """Build for the GPU of this machine."""
        # TensorRT for RTX times nothing when it builds.
        timed = request.sidecar if self.name == "tensorrt" else None
        timings = timing_path(timed, self.identity()) if timed else None
        return make_engine_plan(self.name, request.onnx, request.precision, request.shapes, timings=timings).data

    def load(self, blob: bytes, request: Request) -> Engine:
        """Make a plan ready to run. Raises EngineError with the reason where TensorRT refuses it."""
        from cliprl.engines.backends.tensorrt.engine import TensorRtEngine

        kernels = runtime_path(request.sidecar, request.onnx.stem) if request.sidecar else None
        return TensorRtEngine(self.name, blob, request.precision, request.buffers, kernels)


register_backend(TensorRt("tensorrt"), device="cuda", preference=1)
register_backend(TensorRt("tensorrt_rtx"), device="cuda", preference=2)


def precisions_of(target: str, files: Collection[str]) -> tuple[str, ...]:
    """The arithmetic that a GPU such as "sm86" ("" for one that is not known) has for a bundle of these files."""
    return tuple(each for each in KNOWN if not why_unsupported(each, target, RANGES_FILE in files))


def why_unsupported(precision: str, target: str, calibrated: bool) -> str:
    """Why a GPU such as "sm86" can't run a bundle, `calibrated` or not, in a precision; "" where it can."""
    if precision not in KNOWN:
        return f"'{precision}' is no arithmetic that it knows: {', '.join(KNOWN)}"
    if precision == FP8 and target and int(target[2:]) < OLDEST_FP8:
        return f"{target} has no fp8, which begins with sm{OLDEST_FP8}: int8 or f16"
    if precision in EIGHT_BITS and not calibrated:
        return f"{precision} needs ranges, which the bundle lacks: cliprl-engine quantize makes a bundle that has them"
    return ""


def make_engine_plan(
    package: str,
    onnx: Path,
    precision: str,
    shapes: Mapping[str, tuple[int, ...]],
    target: str | None = None,
    timings: Path | None = None,
) -> TensorRtPlan:
    """Build an ONNX file in one of KNOWN for `target`, such as "sm86", or for this machine's GPU (None).

    Ahead of time, for a target, only `tensorrt_rtx` builds; then no GPU is needed here. `shapes` and `timings` are as for
    `build_plan`.
    Raises UsageError for an unknown target or a precision that it lacks, EngineError for a missing package or a refused
    network.
    """
    if target in PLAN_TARGETS and (reason := why_unsupported(precision, target, onnx.with_name(RANGES_FILE).is_file())):
        raise UsageError(f"{onnx.name} can't be built in '{precision}' for {target}: {reason}")
    try:
        import_module(package)
    except ImportError as error:
        raise EngineError(f"{package} can't be imported ({error}): {INSTALL_COMMANDS[package]}") from error
    rewrite = partial(_rewrite, products=package == "tensorrt_rtx" and precision == "f32" and _is_turing(target))
    return build_plan(package, load_graph_as(onnx, precision, package, rewrite, shapes), shapes, target, timings)


def _rewrite(model: Any, *, products: bool) -> None:
    """Change what TensorRT can't take: kernels of unknown size and, on Turing, `products` of matrices in FP32."""
    from cliprl.engines.onnx.dynamic_conv import rewrite_computed_kernels
    from cliprl.engines.onnx.matmul_to_conv import replace_matrix_products

    rewrite_computed_kernels(model)
    if products:
        replace_matrix_products(model)


def _is_turing(target: str | None) -> bool:
    """Whether a plan is for a GPU of that generation, which for None is this machine's."""
    return (_this_gpu() if target is None else target) == TURING


def _this_gpu() -> str:
    """This machine's GPU, such as "sm86"; "" where there is none."""
    driver = find_driver()
    return driver.gpu.target if driver and driver.gpus else ""
