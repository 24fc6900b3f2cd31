"""Several video streams on one GPU: they take turns, and none gets far ahead of what the GPU has done for it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from cliprl.pipeline.cuda.gpu_api import Event, Gpu, Stream

# Frames of one stream that may be on the GPU at a time: one at work, one that waits so that it never runs dry.
DEPTH = 2


class GpuTurns:
    """A lock that is handed on in the order in which it was asked for: with n streams a frame waits for n - 1 others at most."""

    def __init__(self) -> None:
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def take(self) -> Iterator[None]:
        """Wait for the turn; hold it inside the block."""
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
    """Holds one video stream back until all but its latest frames are done: `DEPTH` frames bound what it makes others wait."""

    def __init__(self, gpu: Gpu, depth: int = DEPTH) -> None:
        self._gpu, self._depth = gpu, depth
        self._given: deque[Event] = deque()
        self._spare: list[Event] = []

    def admit(self) -> None:
        """Wait until there is room for another frame. Not inside a turn: others may go on meanwhile."""
        while len(self._given) >= self._depth:
            event = self._given.popleft()
            self._gpu.synchronize(event)
            self._spare.append(event)

    def given(self, stream: Stream) -> None:
        """A frame's work was given to a stream, to its end."""
        event = self._spare.pop() if self._spare else self._gpu.event()
        self._gpu.record(event, stream)
        self._given.append(event)
