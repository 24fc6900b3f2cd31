"""The GPU operations of the `cuda` device: memory, streams, events, launches and captured graphs.

`cliprl.pipeline.cuda.torch_gpu` implements them. All methods but `synchronize` return before the work is done. Work of one
stream runs in its order; work of several streams runs in any order that events allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from cliprl.pipeline.cuda.kernels.kernel_arguments import Arguments

# Opaque outside the GPU that created them.
Buffer = Any
CudaStream = Any
Event = Any
CudaGraph = Any


class Gpu(Protocol):
    """One GPU. Methods may be called from any thread."""

    name: str

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Allocate contiguous GPU memory with undefined contents."""

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Allocate contiguous page-locked host memory, for asynchronous copies."""

    def address(self, buffer: Buffer) -> int:
        """Return the address of a buffer, as kernels use it."""

    def slice(self, buffer: Buffer, start: int, stop: int, shape: tuple[int, ...] | None = None) -> Buffer:
        """Return a view of entries of a buffer along its first axis, reshaped if a shape is given."""

    def surface(self, plane: Any) -> Buffer:
        """Wrap a decoder's plane, which exports DLPack, as a buffer; its lines may be padded."""

    def capsule(self, buffer: Buffer) -> Any:
        """Export a buffer as a DLPack capsule, which keeps its memory alive, without synchronization."""

    def pitch(self, buffer: Buffer) -> int:
        """Return the number of bytes from line to line."""

    def bind(self) -> None:
        """Make the GPU's context current in the calling thread, for libraries that use the current context."""

    def decoding(self) -> CudaStream:
        """Return the stream on which libav's decoder writes its surfaces: CUDA's default stream."""

    def stream(self, *, urgent: bool = False) -> CudaStream:
        """Create a non-blocking stream for the caller's exclusive use; it does not synchronize with the default stream.

        Work of an `urgent` stream goes before that of others where the GPU has priorities.
        """

    def give_back(self, stream: CudaStream) -> None:
        """Return a stream that is no longer needed, for reuse by a later `stream`."""

    def event(self) -> Event:
        """Create an event. It counts as completed until it is recorded."""

    def record(self, event: Event, stream: CudaStream) -> None:
        """Record an event: it completes when all work enqueued on the stream so far is done."""

    def wait(self, stream: CudaStream, event: Event) -> None:
        """Make a stream wait for the last recording of an event."""

    def synchronize(self, event: Event) -> None:
        """Block the calling thread until the event has completed."""

    def done(self, event: Event) -> bool:
        """Whether the event has completed."""

    def copy(self, target: Any, source: Any, stream: CudaStream) -> None:
        """Enqueue a copy between buffers and pinned memory of equal size. Pinned memory must not change until it is done."""

    def launch(self, arguments: Arguments, stream: CudaStream) -> None:
        """Enqueue a kernel."""

    def capture(self, work: Callable[[CudaStream], None]) -> CudaGraph:
        """Capture what `work` enqueues on the stream that it is called with, without running it.

        The stream is used for captures only. `work` must neither wait nor use another stream. Holds `CAPTURE_LOCK`. Raises
        CaptureError where the capture fails; everything else works as before then.
        """

    def replay(self, graph: CudaGraph, stream: CudaStream) -> None:
        """Enqueue a captured graph, which works on the memory it was captured with."""

    def range(self, name: str) -> AbstractContextManager[object]:
        """Mark a block of the calling thread for a profiler."""


class CaptureError(Exception):
    """The capture of a graph failed; the message is the reason."""


class Network(Protocol):
    """A compiled network on the GPU."""

    def capturable(self, stream: CudaStream) -> bool:
        """Whether a run can be captured. Valid after a run with the same shapes."""

    def enqueue(self, tensors: Mapping[str, Buffer], stream: CudaStream) -> None:
        """Enqueue one run: all inputs and outputs by name, contiguous."""
