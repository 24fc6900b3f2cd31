"""The OpenVINO backend for the CPU: the default, and the only one of the core install."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cliprl.engines.backends.engine import AXIS_RANGES, Probe, Request
from cliprl.engines.backends.no_telemetry import openvino
from cliprl.engines.backends.openvino.engine import OpenVinoEngine
from cliprl.engines.backends.openvino.rewrites import (
    REWRITES,
    compare_with_features,
    keep_channels_last,
    replace_computed_kernels,
    shrink_int8_weights,
)
from cliprl.engines.backends.registry import register_backend
from cliprl.engines.bundle.bundle import ENCODER, INT8_ENCODER, INT8_WEIGHTS
from cliprl.engines.errors import EngineError, reason_of

NAME = "openvino"
INT8 = "int8"
CPU_PRECISIONS = ("bf16", INT8, "f32")
# Instruction sets that add int8 products up in 32 bits. With AVX2 alone OpenVINO adds pairs of them in 16, for which weights
# are shrunk (engines/results/int8-avx2.json).
_INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}
_PAIRED_INT8_FLAG = "avx2"


class OpenVino:
    """The OpenVINO backend. Its blobs are exported compiled models, valid for one OpenVINO version and one CPU."""

    name = NAME
    known_precisions = CPU_PRECISIONS

    def probe(self) -> Probe:
        """Check that OpenVINO is installed and has a CPU plugin."""
        try:
            version = openvino().__version__.split("-")[0]
        except ImportError as error:
            return Probe(NAME, False, f"openvino can't be imported ({error}): pip install openvino")
        try:
            _cpu_name()  # loads this plugin alone; a list of the devices would load those of GPUs too
        except RuntimeError:
            return Probe(
                NAME, False, "openvino finds no CPU plugin: install openvino from PyPI for this machine's architecture"
            )
        return Probe(
            NAME, True, f"openvino {version} on {_cpu_name()}, {' or '.join(self.precisions((INT8_ENCODER,)))}"
        )

    def precisions(self, files: Collection[str] = ()) -> tuple[str, ...]:
        """ "bf16" and "int8" if the CPU computes them natively (int8 also needs an int8 encoder in the bundle), and "f32"."""
        return tuple(each for each in CPU_PRECISIONS if not self.lacks(each, files))

    def lacks(self, precision: str, files: Collection[str]) -> str:
        """Why a precision can't be had here; "" where it can."""
        return why_unsupported(precision, frozenset(_flags()), "BF16" in _capabilities(), INT8_ENCODER in files)

    def sources(self, precision: str) -> tuple[str, ...]:
        """The int8 encoder is a separate file."""
        return (INT8_ENCODER, INT8_WEIGHTS) if precision == INT8 else (ENCODER,)

    def identity(self) -> Mapping[str, str]:
        """OpenVINO's version, and the CPU with all it can do."""
        return {
            "openvino": f"{openvino().__version__}, {REWRITES}",
            "cpu": f"{_cpu_name()}: {' '.join(_capabilities())}",
            "cpu_flags": _cpu_flags(),
        }

    def build(self, request: Request) -> bytes:
        """Compile for latency. Raises EngineError for an unknown precision or a file OpenVINO can't read."""
        try:
            model = _core().read_model(request.onnx)
            compare_with_features(model)
            if request.precision == INT8 and not _INT8_FLAGS.intersection(_flags()):
                shrink_int8_weights(model)
            _reshape(model, request.shapes)
            model = keep_channels_last(model)
            blob: bytes = _core().compile_model(model, "CPU", _hints(request)).export_model().getvalue()
        except RuntimeError as error:
            raise EngineError(f"openvino can't compile {request.onnx}: {reason_of(error, -1)}") from error
        return blob

    def load(self, blob: bytes, request: Request) -> OpenVinoEngine:
        """Import a blob, ten times as fast as to compile. Raises EngineError where OpenVINO refuses it.

        A run of the engine raises it, too, where it needs a second copy of the network and that can't be loaded.
        """

        def imported() -> Any:
            try:
                return _core().import_model(blob, "CPU", _hints(request))
            except RuntimeError as error:
                raise EngineError(f"openvino can't load what it built: {reason_of(error, -1)}") from error

        return OpenVinoEngine(imported, NAME, request)


register_backend(OpenVino(), device="cpu", preference=1)


def why_unsupported(precision: str, flags: frozenset[str], bf16: bool, quantised: bool) -> str:
    """Why a CPU with these instruction sets can't run a bundle, `quantised` or not, in a precision; "" where it can."""
    if precision not in CPU_PRECISIONS:
        kind = "is arithmetic of a GPU" if precision in ("f16", "fp8") else "is no arithmetic that it knows"
        return f"'{precision}' {kind}; on the CPU it computes in {', '.join(CPU_PRECISIONS)}"
    if precision == "bf16" and not bf16:
        return "bf16 needs a CPU with AVX512-BF16 or AMX, which this one lacks"
    if precision == INT8 and not quantised:
        return "the bundle has no int8 encoder: cliprl-engine quantize makes a bundle that has one"
    if precision == INT8 and not (_INT8_FLAGS | {_PAIRED_INT8_FLAG}) & flags:
        return "int8 needs a CPU with AVX2, VNNI, AMX or ARM's dot product, without which it is no faster"
    return ""


def _core() -> Any:
    core, process = _started()
    if process != os.getpid():
        raise EngineError(
            "this process was forked from one that had used OpenVINO, where it would wait for ever: give multiprocessing, or a "
            "torch DataLoader, the start method 'spawn', or use no Segmenter before the fork"
        )
    return core


@cache
def _started() -> tuple[Any, int]:
    """Return OpenVINO's core, and the process that started it: a forked one has none of its threads."""
    return openvino().Core(), os.getpid()


def _reshape(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Fix the sizes of inputs; -1 leaves one open, within the range of classes."""
    from openvino import Dimension, PartialShape

    least, _, most = AXIS_RANGES["classes"]
    if shapes:
        sizes = {
            name: [Dimension(least, most) if size < 0 else size for size in shape] for name, shape in shapes.items()
        }
        model.reshape({name: PartialShape(shape) for name, shape in sizes.items()})
    if any(size < 0 for shape in shapes.values() for size in shape):
        replace_computed_kernels(model)


def _hints(request: Request) -> dict[str, Any]:
    if request.precision not in CPU_PRECISIONS:
        raise EngineError(f"precision '{request.precision}' is unknown to openvino: auto, {', '.join(CPU_PRECISIONS)}")
    # An int8 network states which of its layers are int8; the rest runs in bf16 if the CPU has it.
    rest = "bf16" if "BF16" in _capabilities() else "f32"
    hints: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": rest if request.precision == INT8 else request.precision,
        "NUM_STREAMS": 1,
        # Pinned, every network is put on the first processors: encoder and refiner would share one, the other idle.
        "ENABLE_CPU_PINNING": False,
    }
    return hints | ({"INFERENCE_NUM_THREADS": request.threads} if request.threads else {})


def _capabilities() -> list[str]:
    return sorted(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _cpu_name() -> str:
    return " ".join(_core().get_property("CPU", "FULL_DEVICE_NAME").split())


def _flags() -> list[str]:
    """The CPU's instruction sets, as Linux names them; empty where the system does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])


def _cpu_flags() -> str:
    """The architecture, and a short hash of every instruction set the CPU has."""
    digest = hashlib.sha256(" ".join(sorted(_flags())).encode()).hexdigest()[:12]
    return f"{platform.machine()} {digest}"
