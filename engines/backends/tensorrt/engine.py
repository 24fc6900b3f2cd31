"""Run a TensorRT plan on memory and streams that torch owns, replayed as a CUDA graph where it can be captured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from itertools import cycle
from pathlib import Path
from typing import Any

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK, capture_graph
from cliprl.engines.backends.engine import Engine, TensorSpec
from cliprl.engines.backends.tensorrt.caches import Kernels
from cliprl.engines.backends.tensorrt.messages import create, make_logger, make_recorder
from cliprl.engines.errors import EngineError, line_of

# Graphs kept at a time: one for each combination of addresses that a caller's few fixed tensors make.
GRAPHS = 16


class TensorRtEngine(Engine):
    """A plan, ready to run. Tensors are torch's, on the current GPU; not for use by two threads at once.

    A run whose shapes and addresses were seen before replays a CUDA graph; another run captures one first. Pass the same
    tensors in each run, with new contents. Runs use a stream that belongs to the engine, never CUDA's default stream, after
    the work of the caller's current stream. Where a capture fails, `note` is the reason and runs are enqueued one by one.
    TensorRT for RTX keeps the kernels that it compiles in the file `kernels`.
    """

    def __init__(self, package: str, plan: bytes, precision: str, buffers: int, kernels: Path | None = None) -> None:
        with CAPTURE_LOCK:
            self._load(package, plan, precision, buffers, kernels)

    def _load(self, package: str, plan: bytes, precision: str, buffers: int, kernels: Path | None) -> None:
        import torch

        trt: Any = import_module(package)
        self.backend, self.precision = package, precision
        self._torch = torch
        self._logger, self._errors = make_logger(trt), make_recorder(trt)
        self._runtime = create(trt, trt.Runtime, self._logger, f"{package} makes no runtime here")
        self._runtime.error_recorder = self._errors
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{package} can't load a plan: {_refusal(self._runtime, plan, self._errors)}")
        self._kernels, context = _context(trt, self._engine, kernels, plan)
        self._context = _made(context, f"{package} makes no execution context")
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        specs = {name: self._spec(trt, name) for name in names}
        is_input = {name: self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.inputs: Mapping[str, TensorSpec] = {name: specs[name] for name in names if is_input[name]}
        self.outputs: Mapping[str, TensorSpec] = {name: specs[name] for name in names if not is_input[name]}
        # Of torch's pool of high priority: a default one may be the same as another library's, whose work a capture would record.
        self._stream: Any = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
        self._slots: Any = cycle([dict[str, Any]() for _ in range(buffers)])
        self._staging: dict[tuple[str, tuple[int, ...]], Any] = {}
        self._graphs: OrderedDict[Any, Any] = OrderedDict()
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.note = ""

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run once and wait. Inputs that are elsewhere are copied to the GPU; outputs stay valid until `buffers` more runs."""
        given = {name: self._on_gpu(name, inputs[name]) for name in self.inputs}
        outputs = self._fit(next(self._slots), given)
        key = tuple((name, tuple(t.shape), t.data_ptr()) for name, t in (given | outputs).items())
        self._stream.wait_stream(self._torch.cuda.current_stream())
        if key in self._graphs:
            self._graphs.move_to_end(key)
            with self._torch.cuda.stream(self._stream):
                self._graphs[key].replay()
        elif self.note:
            self.enqueue(given | outputs, self._stream)
        else:
            with CAPTURE_LOCK:
                self._first(key, given | outputs)
        self._stream.synchronize()
        return outputs

    def enqueue(self, tensors: Mapping[str, Any], stream: Any) -> None:
        """Enqueue one run on a torch stream and return: all inputs and outputs by name, on the GPU and contiguous.

        The first run with new tensors must not be captured; those that follow with the same tensors may be.
        """
        self._set_shapes({name: tuple(tensors[name].shape) for name in self.inputs})
        self._set_addresses({name: tensors[name] for name in (*self.inputs, *self.outputs)})
        self._enqueue(stream)

    def capturable(self, stream: Any) -> bool:
        """Whether a run on a torch stream can be part of a CUDA graph. Valid after a run with the shapes in question."""
        return bool(getattr(self._context, "is_stream_capturable", lambda _: True)(stream.cuda_stream))

    def _on_gpu(self, name: str, given: Any) -> Any:
        """A GPU tensor itself; for anything else a copy, at an address that stays the same from run to run."""
        if isinstance(given, self._torch.Tensor) and given.is_cuda and given.is_contiguous():
            return given
        host = self._torch.as_tensor(given)
        key = (name, tuple(host.shape))
        if key not in self._staging:
            dtype = getattr(self._torch, self.inputs[name].dtype)
            self._staging[key] = self._torch.empty(host.shape, dtype=dtype, device="cuda")
        return self._staging[key].copy_(host)

    def _fit(self, slot: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The output tensors of a slot, made anew where the inputs' shapes ask for other sizes."""
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
        if slot.get("shapes") != shapes:
            if slot:
                # The graphs may hold addresses of the tensors that are freed here.
                self._graphs.clear()
            self._set_shapes(shapes)
            slot["shapes"] = shapes
            slot["outputs"] = {name: self._empty(name, spec) for name, spec in self.outputs.items()}
        outputs: dict[str, Any] = slot["outputs"]
        return outputs

    def _set_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if self._shapes.get(name) == shape:
                continue
            if not self._context.set_input_shape(name, shape):
                raise EngineError(f"{self.backend} takes no {shape} for input '{name}': {self._errors.last()}")
            self._shapes[name] = shape

    def _empty(self, name: str, spec: TensorSpec) -> Any:
        shape = tuple(self._context.get_tensor_shape(name))
        return self._torch.empty(shape, dtype=getattr(self._torch, spec.dtype), device="cuda")

    def _first(self, key: Any, tensors: Mapping[str, Any]) -> None:
        """Run once without a capture, which does all lazy set-up, then capture the same run for the next time."""
        self.enqueue(tensors, self._stream)
        self._stream.synchronize()
        if self._kernels:
            self._kernels.save(tuple(tuple(tensors[name].shape) for name in self.inputs))
        if not self.capturable(self._stream):
            self.note = f"{self.backend} can't capture this network into a CUDA graph: its runs are enqueued one by one"
            return
        try:
            self._graphs[key] = capture_graph(self._torch, lambda: self._enqueue(self._stream), self._stream)
        except (RuntimeError, EngineError) as error:
            reason = line_of(error)
            self.note = (
                f"{self.backend}: the capture of a CUDA graph failed ({reason}): its runs are enqueued one by one"
            )
            return
        while len(self._graphs) > GRAPHS:
            self._graphs.popitem(last=False)

    def _set_addresses(self, tensors: Mapping[str, Any]) -> None:
        for name, tensor in tensors.items():
            address = tensor.data_ptr()
            if self._addresses.get(name) == address:
                continue
            if not self._context.set_tensor_address(name, address):
                raise EngineError(f"{self.backend} refuses the memory of '{name}': {self._errors.last()}")
            self._addresses[name] = address

    def _enqueue(self, stream: Any) -> None:
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise EngineError(f"{self.backend} failed to run: {self._errors.last()}")

    def _spec(self, trt: Any, name: str) -> TensorSpec:
        dtype = trt.nptype(self._engine.get_tensor_dtype(name)).__name__
        return TensorSpec(dtype, tuple(self._engine.get_tensor_shape(name)))


def _context(trt: Any, engine: Any, kernels: Path | None, plan: bytes) -> tuple[Kernels | None, Any]:
    """Create an execution context, and the cache of the kernels that it compiles.

    TensorRT for RTX makes a kernel for the shapes at hand in the background, unless it is configured to make it first: a recorded
    graph would replay the slow fallback for ever.
    """
    if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
        return None, engine.create_execution_context()
    config = engine.create_runtime_config()
    config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
    kept = Kernels(config, kernels, plan)
    return kept, engine.create_execution_context(config)


def _made(thing: Any, complaint: str) -> Any:
    if thing is None:
        raise EngineError(f"{complaint}: is there enough GPU memory?")
    return thing


def _refusal(runtime: Any, plan: bytes, errors: Any) -> str:
    """Why a plan does not load: TensorRT for RTX can say."""
    if not hasattr(runtime, "get_engine_validity"):
        return str(errors.last())
    validity, diagnostics = runtime.get_engine_validity(plan)
    return f"{validity}, diagnostics {diagnostics}; {errors.last()}"
