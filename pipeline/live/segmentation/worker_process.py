"""The segmenter in a process of its own: it may crash, hang or be killed, and the picture does not notice.

It gets two file descriptors, CONNECTION and MEMORY, that it inherits. Nothing of the parent's program is imported or run
again, as it would be by `multiprocessing`.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from mmap import mmap
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from cliprl.engines import CliprlError
from cliprl.engines.cli.signals import leave_to_parent
from cliprl.pipeline.core.color import Color
from cliprl.pipeline.core.frame import Frame, Plane
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.thread_policy import single_threaded

Segment = Callable[[Frame], Segmentation]
# Makes the function that segments; pickled by name, and called in the worker.
Make = Callable[[], Segment]
# Room for one frame of 8192x8192; pages that are never written take no memory.
ROOM = 8192 * 8192 * 3 // 2
# The display path goes first where there are too few processors for both.
_NICENESS = 5


@dataclass(frozen=True, slots=True)
class Task:
    """A frame without its planes, which lie in the shared memory: luma, then chroma."""

    number: int
    height: int
    width: int
    pts: int
    time_base: Fraction
    color: Color
    rotation: int

    @classmethod
    def of(cls, number: int, frame: Frame) -> Task:
        """The task of segmenting `frame`."""
        return cls(number, frame.height, frame.width, frame.pts, frame.time_base, frame.color, frame.rotation)

    def planes(self, memory: mmap) -> tuple[Plane, Plane]:
        """The frame's planes in the shared memory."""
        rows, columns = (self.height + 1) // 2, (self.width + 1) // 2
        size, flat = self.height * self.width, np.frombuffer(memory, np.uint8)
        chroma = flat[size : size + 2 * rows * columns]
        return flat[:size].reshape(self.height, self.width), chroma.reshape(rows, columns, 2)

    def frame(self, memory: mmap) -> Frame:
        """The frame as the worker sees it."""
        return Frame(*self.planes(memory), self.pts, self.time_base, self.number, self.color, rotation=self.rotation)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of task `number`: a segmentation, or the error in one line. Number -1: it is ready, or never will be."""

    number: int
    segmentation: Segmentation | None = None
    error: str = ""


def one_line(error: BaseException) -> str:
    """An exception as one line for a person."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CliprlError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _answer(segment: Segment, task: Task, memory: mmap) -> Answer:
    try:
        return Answer(task.number, segment(task.frame(memory)))
    except Exception as error:
        return Answer(task.number, error=one_line(error))


def _work(connection: Any, memory: mmap) -> None:
    sys.path[:] = connection.recv()
    try:
        segment: Segment = pickle.loads(connection.recv_bytes())()
    except Exception as error:
        connection.send(Answer(-1, error=one_line(error)))
        return
    connection.send(Answer(-1))
    while True:
        connection.send(_answer(segment, connection.recv(), memory))


def main() -> None:
    """Segment what comes until the other end of the connection is closed."""
    leave_to_parent()
    os.nice(_NICENESS)
    connection: Any = Connection(int(sys.argv[1]))
    memory = mmap(int(sys.argv[2]), ROOM)
    try:
        with single_threaded():
            _work(connection, memory)
    except (EOFError, ConnectionError):
        return
