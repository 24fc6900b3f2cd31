"""How the stages of a stream, OpenCV and libav's codecs share the processors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import cv2

from cliprl.engines import available_cpus

# With at most this many processors the stages alone keep all of them busy.
_FEW = 2
_HARDWARE_THREADS = 4
# Niceness of threads that write files of a live stream: below the display's (0), whose frames go to viewers at once, and above
# the segmenter's (10), whose masks may come a frame late. Their queues hold a second of frames.
FILE_NICENESS = 2
# Measured live at 60 FPS with a recording, in turns: the 99th percentile from camera to viewer is 0.8 of that with Python's 5 ms.
_SWITCH_SECONDS = 0.0005


def stage_workers(stages: int) -> int:
    """Return the number of workers for stages that compute; with the consuming thread, at most one per processor."""
    return min(stages, max(available_cpus() - 1, 1))


def codec_threads(*, hardware: bool = False) -> int:
    """Return the number of threads for a file's decoder or encoder: 1 if the stages fill the processors, else 0 (libav chooses).

    Measured on two cores at 720p: libav's choice of three threads each gives 5 % fewer frames per second. A decoder in
    `hardware` gets 4: each frame thread takes a surface, and libav's NVDEC fails with more than 32 (16 references + 5 + threads).
    """
    if hardware:
        return _HARDWARE_THREADS
    return 1 if available_cpus() <= _FEW else 0


def lower_priority(niceness: int) -> None:
    """Raise the niceness of the calling thread, and of threads that it starts from then on. Does nothing except on Linux."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + niceness)


class _SharedSetting:
    """A setting of the whole process, changed inside blocks. They may overlap; the last one restores it."""

    def __init__(self, get: Callable[[], float], change: Callable[[Any], None], value: float) -> None:
        self._get, self._change, self._value = get, change, value
        self._lock, self._inside, self._before = threading.Lock(), 0, value

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._before = self._get()
                self._change(self._value)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._change(self._before)


_opencv_threads = _SharedSetting(cv2.getNumThreads, cv2.setNumThreads, 1)
_switch_interval = _SharedSetting(sys.getswitchinterval, sys.setswitchinterval, _SWITCH_SECONDS)


def single_threaded() -> AbstractContextManager[None]:
    """Disable OpenCV's worker threads in the whole process inside the block. Blocks may overlap; the last one restores them.

    The stages of a stream already run in parallel and take about a millisecond each. OpenCV's workers busy-wait for longer than
    that before and after each call, on processors that the networks need.
    """
    return _opencv_threads()


def prompt_switches() -> AbstractContextManager[None]:
    """Let Python's threads ask each other for the interpreter after half a millisecond inside the block, instead of after five.

    A displayed frame waits for it several times. Blocks may overlap; the last one restores the interval.
    """
    return _switch_interval()
