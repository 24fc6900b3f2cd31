"""Share one GPU between video streams: fair turns, and a limit of frames in flight for each stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from cliprl.pipeline.cuda.gpu_api import Event, Gpu

# Maximum number of frames of one stream on the GPU: one being processed and one queued, so that the GPU never idles.
DEPTH = 2
# Seconds after which the thread that enqueues waits for the GPU itself, where no thread has waited for the frames' ends.
_PATIENCE = 0.05


class GpuTurns:
    """A first-come, first-served lock: with n streams a frame waits for at most n - 1 others."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn and hold it inside the block."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
        try:
            with self._changed:
                while self._waiting[0] is not ticket:
                    self._changed.wait()
            yield
        finally:  # Ctrl-C may have ended the waiting: the ticket need not be the first
            with self._changed:
                self._waiting.remove(ticket)
                self._changed.notify_all()


class InFlight:
    """Limit the frames of one video stream in flight to `DEPTH`, which bounds the time that other streams wait for it.

    One thread enqueues frames, another waits for their ends and calls `finished`; only that one waits for the GPU.
    """

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        self._given: deque[Event] = deque()
        self._changed = threading.Condition()

    def admit(self) -> None:
        """Wait until another frame may be enqueued. Call it outside a turn, so that other streams continue."""
        with self._changed:
            if self._changed.wait_for(lambda: len(self._given) < DEPTH, _PATIENCE):
                return
            oldest = self._given[0]
        self._gpu.synchronize(oldest)
        self.finished(oldest)

    def given(self, end: Event) -> None:
        """Note that all work of a frame was enqueued; `end` completes with it."""
        with self._changed:
            self._given.append(end)

    def finished(self, end: Event) -> None:
        """Note that a frame has completed, and those enqueued before it."""
        with self._changed:
            while any(each is end for each in self._given):
                self._given.popleft()
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget all frames, before another stream."""
        with self._changed:
            self._given.clear()
            self._changed.notify_all()
