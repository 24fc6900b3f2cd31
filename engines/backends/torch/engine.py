"""Run an ONNX graph by torch: on a GPU recorded once as a CUDA graph and replayed, on a CPU step by step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK, capture_graph
from cliprl.engines.backends.engine import Engine
from cliprl.engines.backends.torch.graph import Graph, GraphProgram

# Recordings kept at a time: one for each set of input shapes.
MAX_CUDA_GRAPHS = 16


@dataclass(frozen=True, slots=True)
class _Recording:
    """A program on tensors at fixed addresses, and on a GPU the CUDA graph that runs it on them."""

    program: GraphProgram
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    replay: Any


class TorchEngine(Engine):
    """A graph, ready to run. Inputs are NumPy arrays or tensors; outputs are tensors on the graph's device.

    On a GPU the first run with new shapes records a CUDA graph, on a stream of the engine's own, ordered after what the
    caller's current stream has been given. Not for use by two threads at once.
    """

    backend = "torch"

    def __init__(self, graph: Graph, precision: str, buffers: int) -> None:
        self.precision = precision
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self._graph, self._on_gpu = graph, graph.device != "cpu"
        self._stream: Any = torch.cuda.Stream(priority=-1) if self._on_gpu else None  # type: ignore[no-untyped-call]
        self._slots = cycle([dict[str, Tensor]() for _ in range(buffers)])
        self._recordings: OrderedDict[Any, _Recording] = OrderedDict()
        self._programs: dict[Any, GraphProgram] = {}

    @torch.no_grad()
    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run once and wait. The outputs stay valid until `buffers` more runs."""
        given = {name: torch.as_tensor(inputs[name]) for name in self.inputs}
        if not self._on_gpu:
            return self._run(given)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            outputs = self._run(given)
        self._stream.synchronize()
        return outputs

    @torch.no_grad()
    def enqueue(self, tensors: Mapping[str, Tensor], stream: Any) -> None:
        """Give one run to a stream and return: all inputs and outputs by name, on the graph's device; None on a CPU.

        The first run with new shapes must not be recorded; those that follow may be, as part of a CUDA graph.
        """
        given = {name: tensors[name] for name in self.inputs}
        key = tuple(tuple(tensor.shape) for tensor in given.values())
        with torch.cuda.stream(stream), _convolutions():
            if key not in self._programs:
                self._programs[key] = self._graph.program(given)
            for name, result in self._programs[key].run(given).items():
                tensors[name].copy_(result.view(tensors[name].shape))

    def capturable(self, stream: Any) -> bool:
        """Whether a run on a torch stream can be part of a CUDA graph: always."""
        return True

    def _run(self, given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        key = tuple(tuple(tensor.shape) for tensor in given.values())
        if key not in self._recordings:
            self._recordings[key] = self._record(given)
            if len(self._recordings) > MAX_CUDA_GRAPHS:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        recording, slot = self._recordings[key], next(self._slots)
        for name, tensor in given.items():
            recording.inputs[name].copy_(tensor)
        results = recording.outputs
        if recording.replay is not None:
            recording.replay()
        else:
            results = recording.program.run(recording.inputs)
        for name, result in results.items():
            if name not in slot or slot[name].shape != result.shape:
                slot[name] = torch.empty(result.shape, dtype=result.dtype, device=result.device)
            slot[name].copy_(result)
        return slot

    def _record(self, given: Mapping[str, Tensor]) -> _Recording:
        """Try the program once as it is, which does all lazy set-up, then on a GPU record it."""
        device = self._graph.device
        inputs = {name: torch.empty(t.shape, dtype=t.dtype, device=device).copy_(t) for name, t in given.items()}
        if not self._on_gpu:
            return _Recording(self._graph.program(inputs), inputs, {}, None)
        with CAPTURE_LOCK, _convolutions():
            program = self._graph.program(inputs)
            program.run(inputs)
            self._stream.synchronize()
            outputs: dict[str, Tensor] = {}
            try:
                graph = capture_graph(torch, lambda: outputs.update(program.run(inputs)), self._stream)
            except RuntimeError:  # run step by step: slower, the same result
                return _Recording(program, inputs, {}, None)
        return _Recording(program, inputs, outputs, graph.replay)


def _convolutions() -> AbstractContextManager[None]:
    """Set how convolutions run: the first run of one measures which algorithm is fastest, and a CUDA graph then uses it.
    Operations in 32 bits are computed in 32 bits, which is not torch's default on a GPU with TF32."""
    manager: AbstractContextManager[None] = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False)
    return manager
