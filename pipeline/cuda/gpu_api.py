"""What the `cuda` device needs of a GPU: memory, streams, events, launches and recorded graphs.

`cliprl.pipeline.cuda.torch_gpu` is the real one. All but `synchronize` returns before the work is done; work of one stream is
done in its order, work of several in any order that events allow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import DTypeLike, NDArray

from cliprl.pipeline.cuda.kernels.kernel_arguments import Arguments

# Opaque to everybody but the GPU they came from.
Buffer = Any
Stream = Any
Event = Any
Graph = Any


class Gpu(Protocol):
    """One GPU. Its methods may be called from any thread."""

    name: str

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Buffer:
        """Contiguous memory of the GPU; its contents are undefined."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Contiguous host memory that copies to and from the GPU do not have to wait for."""
        ...

    def address(self, buffer: Buffer) -> int:
        """Where a buffer begins, as kernels see it."""
        ...

    def slice(self, buffer: Buffer, start: int, stop: int, shape: tuple[int, ...] | None = None) -> Buffer:
        """Entries of a buffer along its first axis, which share its memory; in another shape of as many, if one is given."""
        ...

    def surface(self, plane: Any) -> Buffer:
        """A decoder's plane, which offers DLPack, as a buffer that shares its memory; its lines may lie further apart."""
        ...

    def capsule(self, buffer: Buffer) -> Any:
        """A buffer as a DLPack capsule, which keeps its memory; nothing is waited for."""
        ...

    def pitch(self, buffer: Buffer) -> int:
        """Bytes from line to line."""
        ...

    def bind(self) -> None:
        """Make the context that all of this lives in the calling thread's current one, for libraries that look for it there."""
        ...

    def decoding(self) -> Stream:
        """The stream on which libav's decoder gives its surfaces: CUDA's default one."""
        ...

    def stream(self) -> Stream:
        """A stream of nobody else's, which waits for no other, the default one included."""
        ...

    def give_back(self, stream: Stream) -> None:
        """A stream is of no more use to who asked for it: it may be given to somebody else."""
        ...

    def event(self) -> Event:
        """A new event. Until it is recorded it counts as having happened."""
        ...

    def record(self, event: Event, stream: Stream) -> None:
        """The event happens when all that the stream was given so far is done."""
        ...

    def wait(self, stream: Stream, event: Event) -> None:
        """The stream goes on only when the event, as last recorded, has happened."""
        ...

    def synchronize(self, event: Event) -> None:
        """The calling thread waits for the event."""
        ...

    def done(self, event: Event) -> bool:
        """Whether the event has happened."""
        ...

    def copy(self, target: Any, source: Any, stream: Stream) -> None:
        """Copy between buffers and pinned memory of one size. Pinned memory must stay as it is until that is done."""
        ...

    def launch(self, arguments: Arguments, stream: Stream) -> None:
        """Run a kernel."""
        ...

    def capture(self, work: Callable[[Stream], None]) -> Graph:
        """Capture what `work` enqueues on the stream that it is called with, without running it.

        The stream is used for captures only. `work` must neither wait nor use another stream. Holds `CAPTURE_LOCK`. Raises
        CaptureError where the capture fails; everything else works as before then.
        """
        ...

    def replay(self, graph: Graph, stream: Stream) -> None:
        """Do what was recorded, on the same memory, as one piece of work."""
        ...

    def range(self, name: str) -> AbstractContextManager[object]:
        """Mark what the calling thread does inside, for a profiler."""
        ...


class CaptureError(Exception):
    """The capture of a graph failed; the message is the reason."""


class Network(Protocol):
    """A compiled network on the GPU."""

    def capturable(self, stream: Stream) -> bool:
        """Whether a run can be captured. Valid after a run with the same shapes."""
        ...

    def enqueue(self, tensors: Mapping[str, Buffer], stream: Stream) -> None:
        """Run once on a stream, and return before that is done: all inputs and outputs by name, contiguous. Can be captured."""
        ...
