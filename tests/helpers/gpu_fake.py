"""A GPU that is none: its streams do their work when a random choice says so, in any order that events allow.

Its memory is poisoned when it is freed and given out again at once; a thread has a current context only after a call that makes
one current; captures fail when told to, and when another thread does what CUDA does not allow meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gpu_host import launch
from gpu_memory import Memory, pointers, unowned
from numpy.typing import DTypeLike, NDArray

from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.cuda.gpu_api import CaptureError
from cliprl.pipeline.cuda.kernels.kernel_arguments import Arguments, FrameData


class Deadlock(Exception):  # noqa: N818 - not an error of the program, but of what is tested
    """Somebody waits for what can't happen."""


@dataclass(eq=False)
class FakeEvent:
    recorded: int = 0
    happened: int = 0


@dataclass(eq=False)
class FakeStream:
    """Work not yet done: each is a function that does it and tells True, or tells False where it has to wait."""

    work: deque[Callable[[], bool]] = field(default_factory=deque)
    urgent: bool = False
    lost: bool = False


class FakeGpu:
    """See `cliprl.pipeline.cuda.gpu_api.Gpu`. `choose(n)` picks one of n; `eager` is the most steps made at each call."""

    name = "simulated GPU"

    def __init__(self, choose: Callable[[int], int], eager: int = 3) -> None:
        self._choose, self._eager = choose, eager
        self.streams: list[FakeStream] = []
        self.spare: list[FakeStream] = []
        self.allocations = self.launches = self.replays = self.waits = 0
        self._capturing: tuple[int, FakeStream, list[Callable[[], bool]]] | None = None
        self.capturable = True
        # Captures that fail, by number from 0; the threads that were in a capture when another thread did what spoils it.
        self.failing: set[int] = set()
        self.captures = self.spoiled = 0
        self.capture_pause: Callable[[], None] = lambda: None
        self.ranges: list[tuple[str, str]] = []
        self._lock = threading.RLock()
        self.memory = Memory()
        self._pinned: set[int] = set()  # where blocks of pinned memory begin, by which torch's allocator finds them
        self.lost = ""  # the error that every call gives from now on
        self._thread = threading.local()
        self._decoding = self.stream()

    def _captures_here(self) -> bool:
        """Whether the calling thread captures."""
        return self._capturing is not None and self._capturing[0] == threading.get_ident()

    def disturb(self) -> None:
        """What CUDA allows in no capture mode while another thread captures: it invalidates that capture."""
        assert not self._captures_here(), "not while this thread captures"
        self.spoiled += self._capturing is not None

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        assert not self._captures_here(), "memory can't be had while a graph is captured"
        self.allocations += 1
        found = self.memory.array(shape, dtype)
        self._pinned.discard(found.ctypes.data)
        return found

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        found = self.empty(shape, dtype)
        self._pinned.add(found.ctypes.data)
        return found

    def address(self, buffer: NDArray[Any]) -> int:
        return buffer.ctypes.data

    def surface(self, plane: Any) -> NDArray[Any]:
        return self.memory.foreign(np.from_dlpack(plane))

    def capsule(self, buffer: NDArray[Any]) -> Any:
        self.require_context()
        return buffer.__dlpack__()

    def require_context(self) -> None:
        """What a codec needs: the GPU's context is current in the calling thread."""
        assert getattr(self._thread, "current", False), "no context is current in this thread"

    def pitch(self, buffer: NDArray[Any]) -> int:
        return buffer.strides[0]

    def bind(self) -> None:
        self.disturb()
        self._thread.current = True

    def decoding(self) -> FakeStream:
        return self._decoding

    def slice(self, buffer: NDArray[Any], start: int, stop: int, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
        return buffer[start:stop] if shape is None else buffer[start:stop].reshape(shape)

    def stream(self, *, urgent: bool = False) -> FakeStream:
        found = next((stream for stream in self.spare if stream.urgent == urgent), None)
        if found is not None:
            self.spare.remove(found)
            return found
        self.disturb()
        self.streams.append(FakeStream(urgent=urgent))
        return self.streams[-1]

    def give_back(self, stream: FakeStream) -> None:
        self.spare.append(stream)

    def event(self) -> FakeEvent:
        return FakeEvent()

    def _give(self, stream: FakeStream, work: Callable[[], bool]) -> None:
        if self.lost:
            raise RuntimeError(self.lost)
        self._thread.current = True  # as CUDA's runtime makes it
        assert not stream.lost, "work on the stream of a lost capture"
        with self._lock:
            if self._capturing is not None and self._captures_here():
                assert stream is self._capturing[1], "a captured stream's work went to another stream"
                self._capturing[2].append(work)
                return
            assert self._capturing is None or stream is not self._capturing[1], (
                "work on a stream that is being captured"
            )
            stream.work.append(work)
            for _ in range(self._choose(self._eager + 1)):
                self.step()

    def step(self, stream: FakeStream | None = None) -> bool:
        """Let some stream, or the one given, do its next piece of work; False where none can."""
        with self._lock:
            able = [each for each in ([stream] if stream else self.streams) if each.work]
            while able:
                each = able.pop(self._choose(len(able)))
                work = each.work.popleft()
                if work():
                    return True
                each.work.appendleft(work)
            return False

    def drain(self) -> None:
        """Do all work."""
        while self.step():
            pass
        if any(stream.work for stream in self.streams):
            raise Deadlock("streams wait for events that nobody records")

    def run(self, work: Callable[[], None], stream: FakeStream) -> None:
        """Give a stream any piece of work."""

        def now() -> bool:
            work()
            return True

        self._give(stream, now)

    def record(self, event: FakeEvent, stream: FakeStream) -> None:
        assert not self._captures_here()
        with self._lock:
            event.recorded += 1
            number = event.recorded

        def happen() -> None:
            event.happened = max(event.happened, number)

        self.run(happen, stream)

    def wait(self, stream: FakeStream, event: FakeEvent) -> None:
        number = event.recorded
        self._give(stream, lambda: event.happened >= number)

    def synchronize(self, event: FakeEvent) -> None:
        assert not self._captures_here(), "the host must not wait while a graph is captured"
        self.waits += 1
        with self._lock:
            while not event.happened >= event.recorded:
                if not self.step():
                    raise Deadlock("the host waits for an event that can't happen")

    def done(self, event: FakeEvent) -> bool:
        with self._lock:
            for _ in range(self._choose(self._eager + 1)):
                self.step()
            return event.happened >= event.recorded

    def copy(self, target: NDArray[Any], source: NDArray[Any], stream: FakeStream) -> None:
        assert target.shape == source.shape
        assert target.dtype == source.dtype
        to, what = unowned(target), unowned(source)
        if self._captures_here():
            assert not self._pinned & {to.ctypes.data, what.ctypes.data}, "freeing this may disturb another capture"

        def work() -> None:
            for each in (to, what):
                self.memory.check(each.ctypes.data)
            np.copyto(to, what)

        self.run(work, stream)

    def launch(self, arguments: Arguments, stream: FakeStream) -> None:
        kept = type(arguments).from_buffer_copy(arguments)
        self.launches += 1

        def work() -> None:
            for address in pointers(kept):
                self.memory.check(address)
            frame = getattr(kept, "frame", None)
            if frame is not None:  # what the kernel finds in the memory of the GPU when it runs
                for address in pointers(FrameData.from_address(frame)):
                    self.memory.check(address)
            launch(kept)

        self.run(work, stream)

    def capture(self, work: Callable[[FakeStream], None]) -> list[Callable[[], bool]]:
        with CAPTURE_LOCK:
            captured: list[Callable[[], bool]] = []
            stream, number, spoiled = FakeStream(), self.captures, self.spoiled
            self.captures += 1
            self._capturing = (threading.get_ident(), stream, captured)
            try:
                work(stream)
                self.capture_pause()
            finally:
                self._capturing = None
            if number in self.failing or self.spoiled != spoiled:
                stream.lost = True
                raise CaptureError("operation failed due to a previous error during capture")
            return captured

    def replay(self, graph: list[Callable[[], bool]], stream: FakeStream) -> None:
        self.replays += 1
        self.run(lambda: [work() for work in graph] and None, stream)

    @contextmanager
    def range(self, name: str) -> Iterator[None]:
        thread = threading.current_thread().name
        self.ranges.append((thread, name))
        yield
        self.ranges.append((thread, f"end of {name}"))


class HostNetwork:
    """An engine that runs on the host when its turn comes on a stream."""

    def __init__(self, gpu: FakeGpu, engine: Any) -> None:
        gpu.disturb()  # as loading an engine does
        self._gpu, self._engine = gpu, engine

    def capturable(self, stream: FakeStream) -> bool:
        return self._gpu.capturable

    def enqueue(self, tensors: Mapping[str, NDArray[Any]], stream: FakeStream) -> None:
        capture = self._gpu._capturing
        assert capture is None or capture[0] == threading.get_ident(), "used while another thread captures it"
        given = {name: unowned(tensor) for name, tensor in tensors.items()}

        def run() -> None:
            for tensor in given.values():
                self._gpu.memory.check(tensor.ctypes.data)
            outputs = self._engine.run({name: given[name] for name in self._engine.inputs})
            for name in self._engine.outputs:
                np.copyto(given[name], np.asarray(outputs[name]).reshape(given[name].shape))

        self._gpu.run(run, stream)
