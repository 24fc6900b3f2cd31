"""The segmenter in a separate process, which may crash, hang or be killed without any effect on the display.

`Worker` is the parent's side: it starts the process, sends frames, receives answers, and kills it. `main` is the child's side.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from mmap import mmap

import numpy as np

from cliprl.engines import CliprlError
from cliprl.pipeline.core.child_process import SHARED_BYTES, ChildProcess, answer_messages, planes_in
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.thread_policy import single_threaded

SegmentFunction = Callable[[Frame], Segmentation]
# Makes the function that segments; it is pickled by name and called in the worker process.
SegmenterFactory = Callable[[], SegmentFunction]
# The worker's priority is lower than the display path's. Measured live at 60 FPS with a recording, in turns: the 99th percentile
# from camera to viewer is half of that with 5, with masks of the same age; 19 is no better.
_NICENESS = 10
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

    def frame(self, memory: mmap) -> Frame:
        """Return the frame, with its planes in the shared memory."""
        planes = planes_in(memory, self.height, self.width)
        return Frame(*planes, self.pts, self.time_base, self.number, self.color, rotation=self.rotation)


@dataclass(frozen=True, slots=True)
class WorkerReply:
    """The result of task `number`: a segmentation, or an error in one line."""

    number: int
    segmentation: Segmentation | None = None
    error: str = ""


class Worker(ChildProcess):
    """One worker process with its connection and shared memory. For one thread at a time."""

    def __init__(self, make_segmenter: SegmenterFactory) -> None:
        """Start the process. It needs a second or more until it is ready."""
        super().__init__(_PROGRAM, make_segmenter, "the segmenter", WorkerError)
        self._number = -1

    def segment(self, number: int, frame: Frame) -> None:
        """Copy a frame to the worker. The answer to the last one must have been received."""
        if frame.luma.size + frame.chroma.size > SHARED_BYTES:
            raise WorkerError(f"a frame of {frame.width}x{frame.height} is too large to segment live")
        luma, chroma = planes_in(self.memory, frame.height, frame.width)
        np.copyto(luma, frame.luma)
        np.copyto(chroma, frame.chroma)
        self._number = number
        self.send(WorkerTask.of(number, frame))

    def answer(self, timeout: float) -> WorkerReply | None:
        """Return the next answer; None if there is none within `timeout` seconds. Raises WorkerError if the worker died."""
        return WorkerReply(self._number, *self.receive()) if self.poll(timeout) else None


def main() -> None:
    """Segment frames until the parent closes the connection."""
    os.nice(_NICENESS)
    with single_threaded():
        answer_messages(_prepare)


def _prepare(make_segmenter: SegmenterFactory, memory: mmap) -> Callable[[WorkerTask], Segmentation]:
    segment = make_segmenter()
    gc.collect()
    gc.freeze()  # what is loaded now stays: no collection holds up a frame for it

    def segment_task(task: WorkerTask) -> Segmentation:
        segmentation = segment(task.frame(memory))
        # Kept in the answer: else the display path computes it, once for each frame to which the mask is moved.
        _ = segmentation.reliability
        return segmentation

    return segment_task
