"""Memory that is reused from frame to frame: the ring of frame slots, planes, and working arrays."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from cliprl.pipeline.core.frame import Frame, Plane, allocate_image

if TYPE_CHECKING:
    import av

Policy = Literal["wait", "drop-oldest"]


class RingClosed(Exception):  # noqa: N818 - not an error: the reader has gone, the writer is to end
    """The stream was stopped; the writer should return."""


class FrameRing:
    """A fixed number of preallocated frame slots with one writer and one reader.

    The writer requests planes (`acquire`), fills them and hands the frame over (`publish`). The reader takes frames in order
    (`take`), may hold several, and returns each (`release`). With a full ring, the writer of a file waits; that of a live source
    ("drop-oldest") overwrites the oldest frame that was not taken yet and counts it in `dropped`. `waited`: seconds that the
    writer has waited for slots. A slot that the reader holds is never written. Slots are allocated at their first use, and again
    only if the frame size changes. `on_ready` is called on the writer's thread when a frame or the end can be taken.
    """

    def __init__(self, slots: int, policy: Policy = "wait") -> None:
        if slots < 2:
            raise ValueError(f"a ring needs at least 2 slots, one to write and one to read; {slots} given")
        self.policy = policy
        self.dropped = 0
        self.waited = 0.0
        self._planes: list[tuple[Plane, Plane] | None] = [None] * slots
        self._images: dict[int, av.VideoFrame | None] = {}
        self._free = deque(range(slots))
        self._ready: deque[Frame] = deque()
        self._writing: int | None = None
        self._error: BaseException | None = None
        self._finished = self._stopped = False
        self._changed = threading.Condition()
        self.on_ready: Callable[[], None] = lambda: None

    def acquire(self, height: int, width: int) -> tuple[Plane, Plane]:
        """NV12 planes of a slot to write the next frame into. Blocks by the policy; raises RingClosed once stopped."""
        slot = self.reserve()
        planes = self._planes[slot]
        if planes is None or planes[0].shape != (height, width):
            planes = self._planes[slot] = self._allocate(slot, height, width)
        return planes

    def reserve(self) -> int:
        """The slot that the writer is to fill; the same one until it is published. Blocks and raises as `acquire`."""
        with self._changed:
            if self._writing is None:
                self._writing = self._next_slot()
            return self._writing

    def _allocate(self, slot: int, height: int, width: int) -> tuple[Plane, Plane]:
        planes, self._images[slot] = allocate_image(height, width)
        return planes

    def _next_slot(self) -> int:
        while True:
            if self._stopped:
                raise RingClosed
            if self._free:
                return self._free.popleft()
            if self.policy == "drop-oldest" and self._ready:
                self.dropped += 1
                return self._ready.popleft().slot
            start = time.monotonic()
            self._changed.wait()
            self.waited += time.monotonic() - start

    def publish(self, frame: Frame) -> None:
        """Hand over the frame just written into the acquired slot."""
        with self._changed:
            if self._writing is None:
                raise ValueError("publish without acquire: the frame's planes belong to no slot of this ring")
            frame.slot, self._writing = self._writing, None
            frame.image = self._images.get(frame.slot)
            self._ready.append(frame)
            self._changed.notify_all()
        self.on_ready()

    def finish(self, error: BaseException | None = None) -> None:
        """The writer has no more frames, or failed with `error`, which `take` raises after the frames before it."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()
        self.on_ready()

    @property
    def writable(self) -> bool:
        """Whether `acquire` returns, or raises, at once."""
        return bool(self._free) or self._writing is not None or self._stopped

    @property
    def ready(self) -> bool:
        """Whether `take` returns, or raises, at once."""
        return bool(self._ready) or self._finished

    def take(self) -> Frame | None:
        """The oldest frame not yet taken; waits for one. None at the end of the stream."""
        with self._changed:
            while not self._ready and not self._finished:
                self._changed.wait()
            if self._ready:
                return self._ready.popleft()
            if self._error is not None:
                raise self._error
            return None

    def release(self, frame: Frame) -> None:
        """Give a taken frame's slot back to the writer; its planes must not be used afterwards."""
        with self._changed:
            if frame.slot < 0:
                raise ValueError(f"frame {frame.index} was released twice or never belonged to this ring")
            self._free.append(frame.slot)
            frame.slot = -1
            self._changed.notify_all()

    def stop(self) -> None:
        """Let the writer end at its next `acquire`. Frames already published can still be taken."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()


class BufferPool:
    """Named arrays that are allocated once and grow as needed. New memory pages would cost more than the arithmetic on them.

    Not for use by two threads at once.
    """

    def __init__(self) -> None:
        self._memory: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.uint8) -> NDArray[Any]:
        """Return an array with undefined contents. It shares its memory with all earlier arrays of the same name."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = self._memory.get(name)
        if memory is None or memory.size < size:
            memory = self._memory[name] = np.empty(size, np.uint8)
        return memory[:size].view(dtype).reshape(shape)
