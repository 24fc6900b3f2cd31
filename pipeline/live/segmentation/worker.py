"""The segmenter in a separate process, which may crash, hang or be killed without any effect on the display.

`Worker` is the parent's side: it starts the process, sends frames, receives answers, and kills it. `main` is the child's side.
"""

from __future__ import annotations

import gc
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from mmap import mmap
from typing import Any

import numpy as np

from cliprl.engines import CliprlError
from cliprl.engines.cli.signals import leave_to_parent
from cliprl.pipeline.core.child_process import ChildProcess, child_ends, one_line
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.thread_policy import single_threaded

SegmentFunction = Callable[[Frame], Segmentation]
# Makes the function that segments; it is pickled by name and called in the worker process.
SegmenterFactory = Callable[[], SegmentFunction]
# Bytes for one frame of 8192x8192; unused pages take no memory.
_SHARED_BYTES = 8192 * 8192 * 3 // 2
# The worker's priority is lower than the display path's.
_NICENESS = 5
# Not run by `-m`: the module would be `__main__` there, and its classes would be unknown here.
_PROGRAM = "from cliprl.pipeline.live.segmentation.worker import main; main()"


class WorkerError(CliprlError):
    """The worker process died, hangs, or could not start, and must be replaced."""


@dataclass(frozen=True, slots=True)
class WorkerTask:
    """A frame without its planes, which lie in the shared memory: luma, then chroma."""

    number: int
    height: int
    width: int
    pts: int
    time_base: Fraction
    color: ColorSpace
    rotation: int

    @classmethod
    def of(cls, number: int, frame: Frame) -> WorkerTask:
        """Return the task of segmenting `frame`."""
        return cls(number, frame.height, frame.width, frame.pts, frame.time_base, frame.color, frame.rotation)

    def planes(self, memory: mmap) -> tuple[Plane, Plane]:
        """Return the frame's planes in the shared memory."""
        rows, columns = (self.height + 1) // 2, (self.width + 1) // 2
        size, flat = self.height * self.width, np.frombuffer(memory, np.uint8)
        chroma = flat[size : size + 2 * rows * columns]
        return flat[:size].reshape(self.height, self.width), chroma.reshape(rows, columns, 2)

    def frame(self, memory: mmap) -> Frame:
        """Return the frame, with its planes in the shared memory."""
        return Frame(*self.planes(memory), self.pts, self.time_base, self.number, self.color, rotation=self.rotation)


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """The result of task `number`: a segmentation, or an error in one line. Number -1: the worker is ready, or has failed."""

    number: int
    segmentation: Segmentation | None = None
    error: str = ""


class Worker(ChildProcess):
    """One worker process with its connection and shared memory. For one thread at a time."""

    def __init__(self, make_segmenter: SegmenterFactory) -> None:
        """Start the process. It needs a second or more until it is ready."""
        super().__init__(_PROGRAM, _SHARED_BYTES, "the segmenter", WorkerError)
        self._ready = False
        self.send(pickle.dumps(make_segmenter))

    def is_ready(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds and return whether it accepts frames. Raises WorkerError if it failed to start."""
        if not self._ready and self.poll(timeout):
            answer: WorkerReply = self.receive()
            if answer.error:
                raise WorkerError(answer.error)
            self._ready = True
        return self._ready

    def segment(self, number: int, frame: Frame) -> None:
        """Copy a frame to the worker. The answer to the last one must have been received."""
        task = WorkerTask.of(number, frame)
        if frame.luma.size + frame.chroma.size > _SHARED_BYTES:
            raise WorkerError(f"a frame of {frame.width}x{frame.height} is too large to segment live")
        luma, chroma = task.planes(self.memory)
        np.copyto(luma, frame.luma)
        np.copyto(chroma, frame.chroma)
        self.send(task)

    def answer(self, timeout: float) -> WorkerReply | None:
        """Return the next answer; None if there is none within `timeout` seconds. Raises WorkerError if the worker died."""
        return self.receive() if self.poll(timeout) else None


def _answer(segment: SegmentFunction, task: WorkerTask, memory: mmap) -> WorkerReply:
    try:
        return WorkerReply(task.number, segment(task.frame(memory)))
    except Exception as error:
        return WorkerReply(task.number, error=one_line(error))


def _work(connection: Any, memory: mmap) -> None:
    try:
        segment: SegmentFunction = pickle.loads(connection.recv())()
    except Exception as error:
        connection.send(WorkerReply(-1, error=one_line(error)))
        return
    gc.collect()
    gc.freeze()  # what is loaded now stays: no collection holds up a frame for it
    connection.send(WorkerReply(-1))
    while True:
        connection.send(_answer(segment, connection.recv(), memory))


def main() -> None:
    """Segment frames until the parent closes the connection."""
    leave_to_parent()
    os.nice(_NICENESS)
    connection, memory = child_ends()
    try:
        with single_threaded():
            _work(connection, memory)
    except (EOFError, ConnectionError):
        return
