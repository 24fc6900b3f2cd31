"""From ONNX to a TensorRT plan: a strongly typed network, one optimization profile, and, for RTX, a GPU that is not here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from cliprl.engines.backends.engine import AXIS_RANGES, TensorSpec
from cliprl.engines.backends.tensorrt.caches import Timings
from cliprl.engines.backends.tensorrt.messages import create, make_logger, make_recorder
from cliprl.engines.errors import EngineError, UsageError

# The GPU generations that TensorRT for RTX compiles for where there is none: Turing, Ampere, Ada, Blackwell.
PLAN_TARGETS = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")

# TensorRT for RTX: no allocation at run time, without which a run cannot be captured into a CUDA graph.
USER_ALLOCATION = "REQUIRE_USER_ALLOCATION"
# What plans are built with, for the cache key.
BUILD_SETTINGS = "known shapes static, user allocation"

TensorShape = tuple[int, ...]
Profile = Mapping[str, tuple[TensorShape, TensorShape, TensorShape]]


@dataclass(frozen=True, slots=True)
class TensorRtPlan:
    """A built engine: its bytes, its network's tensors, and the smallest, usual and largest shape of each open input."""

    data: bytes
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    profile: Profile


def build_plan(
    package: str,
    model: bytes,
    shapes: Mapping[str, TensorShape],
    target: str | None = None,
    timings: Path | None = None,
) -> TensorRtPlan:
    """Build the serialized ONNX `model` with `package` ("tensorrt" or "tensorrt_rtx").

    `shapes` fixes the shapes of inputs; inputs without one, and sizes of -1, stay open within RANGES. `target` is one of
    TARGETS, or None for this machine's GPU; `timings` is the file that keeps what the build measures, where it may.
    Raises UsageError for an unknown target, EngineError with TensorRT's own words where it refuses the network.
    """
    trt: Any = import_module(package)
    logger, recorder = make_logger(trt), make_recorder(trt)
    builder = create(trt, trt.Builder, logger, f"{package} makes no builder here")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    builder.error_recorder = recorder
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise EngineError(f"{package} can't read the network: {_parser_error(parser)}")
    config = builder.create_builder_config()
    if target is not None:
        _aim(trt, config, target)
    inputs = {t.name: t for t in (network.get_input(i) for i in range(network.num_inputs))}
    _fix(inputs, shapes)
    profile = _profile(inputs, shapes)
    _add_profile(builder, config, profile)
    if hasattr(trt.BuilderFlag, USER_ALLOCATION):
        config.set_flag(getattr(trt.BuilderFlag, USER_ALLOCATION))
    kept = Timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{package} can't build the network: {recorder.last()}")
    kept.save()
    outputs = (network.get_output(i) for i in range(network.num_outputs))
    specs = {name: tensor_spec(trt, tensor) for name, tensor in inputs.items()}
    return TensorRtPlan(bytes(plan), specs, {tensor.name: tensor_spec(trt, tensor) for tensor in outputs}, profile)


def tensor_spec(trt: Any, tensor: Any) -> TensorSpec:
    """Type and shape of a network's tensor."""
    return TensorSpec(trt.nptype(tensor.dtype).__name__, tuple(tensor.shape))


def _parser_error(parser: Any) -> str:
    return (
        "; ".join(" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors)) or "no reason given"
    )


def _aim(trt: Any, config: Any, target: str) -> None:
    capability = getattr(getattr(trt, "ComputeCapability", None), target.upper(), None)
    if target not in PLAN_TARGETS or capability is None:
        raise UsageError(
            f"unknown target '{target}': {trt.__name__} builds ahead of time for {', '.join(PLAN_TARGETS)}"
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(capability, 0):
        raise EngineError(f"{trt.__name__} refuses to build for {target}: update it")


def _fix(inputs: Mapping[str, Any], shapes: Mapping[str, TensorShape]) -> None:
    """Make inputs static whose shapes are known: the engine then needs no kernels for other sizes."""
    for name, tensor in inputs.items():
        shape = shapes.get(name)
        if shape is not None and -1 in tuple(tensor.shape) and -1 not in shape:
            _limits(tensor, shape)  # raises for a size that no bundle may have
            tensor.shape = shape


def _profile(inputs: Mapping[str, Any], shapes: Mapping[str, TensorShape]) -> Profile:
    return {name: _limits(tensor, shapes.get(name)) for name, tensor in inputs.items() if -1 in tuple(tensor.shape)}


def _limits(tensor: Any, usual: TensorShape | None) -> tuple[TensorShape, TensorShape, TensorShape]:
    """Return the smallest, usual and largest shape of an input with open sizes."""
    least, middle, largest = [], [], []
    for axis, size in enumerate(tensor.shape):
        low, most_often, high = AXIS_RANGES.get(tensor.get_dimension_name(axis), (size, size, size))
        if low == -1:
            raise EngineError(
                f"input '{tensor.name}' leaves size {axis} open under the name '{tensor.get_dimension_name(axis)}': "
                f"only {', '.join(AXIS_RANGES)} may be open; export the network again"
            )
        wanted = usual[axis] if usual and usual[axis] > 0 else most_often
        if not low <= wanted <= high:
            raise UsageError(f"input '{tensor.name}' of size {wanted} on axis {axis} is outside {low} to {high}")
        least.append(low)
        middle.append(wanted)
        largest.append(high)
    return tuple(least), tuple(middle), tuple(largest)


def _add_profile(builder: Any, config: Any, profile: Profile) -> None:
    made = builder.create_optimization_profile()
    for name, (least, usual, largest) in profile.items():
        made.set_shape(name, least, usual, largest)
    if profile and config.add_optimization_profile(made) < 0:
        raise EngineError(f"TensorRT refuses the optimization profile {dict(profile)}: report this")
