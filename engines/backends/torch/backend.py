"""Torch on an NVIDIA GPU: for machines without TensorRT. It runs a bundle's ONNX files as they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.util import find_spec

from cliprl.engines.backends.engine import Engine, Probe, Request
from cliprl.engines.backends.gpu_discovery import NO_DRIVER, DriverInfo, GpuInfo, find_driver, gpu_identity, no_gpu
from cliprl.engines.backends.registry import register_backend
from cliprl.engines.backends.tensorrt.probe import torch_cuda, why_not_torch
from cliprl.engines.bundle.bundle import ENCODER
from cliprl.engines.onnx.load import FLOAT_PRECISIONS, load_graph_as

NAME = "torch"


class Torch:
    """The backend. Blobs are the ONNX graph in its precision; what a GPU records of it is recorded at every start."""

    name = NAME
    known_precisions = FLOAT_PRECISIONS

    def probe(self) -> Probe:
        """Whether torch is installed, can use the GPU and was built for it."""
        driver = find_driver()
        reason = why_not(driver, torch_cuda, _built_for, find_spec("onnx") is not None)
        if reason:
            return Probe(NAME, False, reason)
        assert driver is not None
        gpu = driver.gpu
        return Probe(NAME, True, f"torch {torch_cuda()[0]} on {gpu.name} ({gpu.target}), driver {driver.version}")

    def precisions(self, files: Collection[str] = ()) -> tuple[str, ...]:
        """ "f16" first. Eight bits are TensorRT's."""
        return FLOAT_PRECISIONS

    def lacks(self, precision: str, files: Collection[str]) -> str:
        """Why a precision can't be had here; "" where it can."""
        return (
            ""
            if precision in FLOAT_PRECISIONS
            else f"it computes in {' or '.join(FLOAT_PRECISIONS)}, not in '{precision}'"
        )

    def sources(self, precision: str) -> tuple[str, ...]:
        """The encoder's ONNX file."""
        return (ENCODER,)

    def identity(self) -> Mapping[str, str]:
        """Torch's version, which the bytes kept do not depend on but the gate's verdict does, and the GPU and its driver."""
        return {NAME: torch_cuda()[0], **gpu_identity()}

    def build(self, request: Request) -> bytes:
        """The graph in the precision asked for. Raises EngineError where torch has no likeness of one of its operators."""
        data = load_graph_as(request.onnx, request.precision, NAME, shapes=request.shapes)
        from cliprl.engines.backends.torch.graph import Graph

        Graph(data, "cpu")
        return data

    def load(self, blob: bytes, request: Request) -> Engine:
        """Put the graph on the GPU."""
        from cliprl.engines.backends.torch.engine import TorchEngine
        from cliprl.engines.backends.torch.graph import Graph

        return TorchEngine(Graph(blob, "cuda"), request.precision, request.buffers)


register_backend(Torch(), device="cuda", preference=3)


def why_not(
    driver: DriverInfo | None,
    state: Callable[[], tuple[str, bool]],
    built_for: Callable[[], Sequence[str]],
    onnx: bool,
) -> str:
    """Why torch can't serve on a GPU here; "" where it can.

    `state` tells torch's version and whether it can use a GPU, `built_for` the GPUs it was compiled for ("sm_86"), `onnx`
    whether the package is there that reads the networks.
    """
    if driver is None:
        return NO_DRIVER
    if not driver.gpus:
        return no_gpu(driver)
    if reason := why_not_torch(state):
        return reason
    gpu = driver.gpu
    if not any(_serves(each, gpu) for each in built_for()):
        return f"torch {state()[0]} was not built for {gpu.name} ({gpu.target}): install one that was, or run with --device cpu"
    return "" if onnx else "onnx, which reads the networks, is not installed: pip install 'cliprl[gpu]'"


def _serves(built: str, gpu: GpuInfo) -> bool:
    """Whether code for "sm_86", or "compute_86" to be compiled at run time, runs on this GPU (CUDA's binary compatibility)."""
    kind, _, number = built.partition("_")
    digits = "".join(c for c in number if c.isdecimal())
    capability = (int(digits[:-1]), int(digits[-1]))
    return capability <= gpu.capability and (kind == "compute" or capability[0] == gpu.capability[0])


def _built_for() -> list[str]:
    import torch

    return torch.cuda.get_arch_list()
