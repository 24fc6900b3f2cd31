"""Implement the GPU operations with torch's memory, streams, events and graphs; kernels run in torch's context."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray
from torch.utils.dlpack import from_dlpack

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK, capture_graph
from cliprl.engines.errors import EngineError, line_of
from cliprl.pipeline.cuda.gpu_api import CaptureError
from cliprl.pipeline.cuda.kernels.kernel_arguments import Arguments
from cliprl.pipeline.cuda.kernels.launchers import Launcher

_TYPES = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.int32): torch.int32,
    # Used by kernels only: the same bytes.
    np.dtype(np.uint32): torch.int32,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}

# Seconds for which a thread asks whether an event has completed before it sleeps until then.
_SPIN = 50e-6


class TorchGpu:
    """See `cliprl.pipeline.cuda.gpu_api.Gpu`. Buffers are tensors on the GPU number `index`, streams torch's."""

    def __init__(self, launcher: Launcher, index: int = 0) -> None:
        self.name = torch.cuda.get_device_name(index)
        self._launcher, self._device = launcher, torch.device("cuda", index)
        self._spare: dict[bool, list[torch.cuda.Stream]] = {False: [], True: []}
        self._urgent: set[int] = set()
        # Graphs run one after the other on one stream and keep no state in this memory, so they share a pool.
        self._pool = torch.cuda.graph_pool_handle()
        # Torch does not use a pool again after its last graph was freed: keep the first graph.
        self._first: torch.cuda.CUDAGraph | None = None
        self._capturing: torch.cuda.Stream | None = None

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> torch.Tensor:
        """See `Gpu`. Raises EngineError if out of memory."""
        try:
            return torch.empty(shape, dtype=_TYPES[np.dtype(dtype)], device=self._device)
        except torch.OutOfMemoryError as error:
            reason = str(error).partition(". ")[0]
            raise EngineError(f"{self.name}: {reason}: run fewer streams at once, or a smaller bundle") from error

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Gpu`. The array keeps the tensor alive."""
        array: NDArray[Any] = torch.empty(shape, dtype=_TYPES[np.dtype(dtype)], pin_memory=True).numpy()
        return array

    def address(self, buffer: torch.Tensor) -> int:
        """See `Gpu`."""
        return buffer.data_ptr()

    def slice(self, buffer: torch.Tensor, start: int, stop: int, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """See `Gpu`."""
        return buffer[start:stop] if shape is None else buffer[start:stop].view(shape)

    def surface(self, plane: Any) -> torch.Tensor:
        """See `Gpu`. PyAV's planes accept no stream argument, which torch would pass."""
        tensor: torch.Tensor = from_dlpack(plane.__dlpack__())
        return tensor

    def capsule(self, buffer: torch.Tensor) -> Any:
        """See `Gpu`. Torch exports from the current device only."""
        with torch.cuda.device(self._device):
            return buffer.__dlpack__(stream=-1)

    def pitch(self, buffer: torch.Tensor) -> int:
        """See `Gpu`."""
        return buffer.stride(0) * buffer.element_size()

    def bind(self) -> None:
        """See `Gpu`. CUDA's runtime does so in the first call that needs a context."""
        torch.cuda.set_device(self._device)
        self.record(self.event(), self.decoding())

    def decoding(self) -> torch.cuda.Stream:
        """See `Gpu`."""
        return torch.cuda.default_stream(self._device)

    def stream(self, *, urgent: bool = False) -> torch.cuda.Stream:
        """See `Gpu`. Not from torch's pool, in which two streams may be the same."""
        if self._spare[urgent]:
            return self._spare[urgent].pop()
        handle = self._launcher.stream(urgent=urgent)
        if urgent:
            self._urgent.add(handle)
        return torch.cuda.ExternalStream(handle, self._device)  # type: ignore[no-untyped-call]

    def give_back(self, stream: torch.cuda.Stream) -> None:
        """See `Gpu`."""
        self._spare[stream.cuda_stream in self._urgent].append(stream)

    def event(self) -> torch.cuda.Event:
        """See `Gpu`. A waiting thread sleeps instead of spinning."""
        return torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]

    def record(self, event: torch.cuda.Event, stream: torch.cuda.Stream) -> None:
        """See `Gpu`."""
        event.record(stream)

    def wait(self, stream: torch.cuda.Stream, event: torch.cuda.Event) -> None:
        """See `Gpu`."""
        stream.wait_event(event)

    def synchronize(self, event: torch.cuda.Event) -> None:
        """See `Gpu`. Asks for a moment, since waking a thread that sleeps takes about as long, then sleeps."""
        end = time.perf_counter() + _SPIN
        while not event.query():  # type: ignore[no-untyped-call]
            if time.perf_counter() > end:
                event.synchronize()
                return
            time.sleep(0)  # lets another thread have the interpreter

    def done(self, event: torch.cuda.Event) -> bool:
        """See `Gpu`."""
        return bool(event.query())  # type: ignore[no-untyped-call]

    def copy(self, target: Any, source: Any, stream: torch.cuda.Stream) -> None:
        """See `Gpu`."""
        with torch.cuda.stream(stream):
            torch.as_tensor(target).copy_(torch.as_tensor(source), non_blocking=True)

    def launch(self, arguments: Arguments, stream: torch.cuda.Stream) -> None:
        """See `Gpu`."""
        self._launcher.launch(arguments, stream.cuda_stream)

    def capture(self, work: Callable[[torch.cuda.Stream], None]) -> torch.cuda.CUDAGraph:
        """See `Gpu`. After a failure the next capture gets a new memory pool and a new stream."""
        with CAPTURE_LOCK:
            self._capturing = self._capturing or self.stream()
            stream = self._capturing
            try:
                graph: torch.cuda.CUDAGraph = capture_graph(torch, lambda: work(stream), stream, self._pool)
            except Exception as error:
                self._pool, self._first, self._capturing = torch.cuda.graph_pool_handle(), None, None
                raise CaptureError(line_of(error)) from error
            self._first = self._first or graph
            return graph

    def replay(self, graph: torch.cuda.CUDAGraph, stream: torch.cuda.Stream) -> None:
        """See `Gpu`."""
        with torch.cuda.stream(stream):
            graph.replay()

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        """See `Gpu`: an NVTX range."""
        torch.cuda.nvtx.range_push(name)  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]
