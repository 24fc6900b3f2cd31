"""The parent's side of a segmenting process: start it, hand it frames, take its answers, end it whatever it does."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from contextlib import suppress
from mmap import mmap
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from cliprl.engines import CliprlError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.segmentation.worker_process import ROOM, Answer, Make, Task

# Answers are waited for in slices of so many seconds, so that a stop is noticed.
_SLICE = 0.1
# Not run by `-m`, under which the module would be `__main__` there, and its answers of no type known here.
_PROGRAM = "from cliprl.pipeline.live.segmentation.worker_process import main; main()"


class WorkerError(CliprlError):
    """The process died, hangs, or could not start: it is to be replaced."""


class Worker:
    """One segmenting process with its connection and its shared memory. For use by one thread at a time."""

    def __init__(self, make: Make) -> None:
        """Start the process; it gets ready by itself, which takes a second or more."""
        ours, theirs = socket.socketpair()
        memory = os.memfd_create("cliprl-frame")
        try:
            os.ftruncate(memory, ROOM)
            self._memory = mmap(memory, ROOM)
            descriptors = (theirs.fileno(), memory)
            command = [sys.executable, "-c", _PROGRAM, *map(str, descriptors)]
            self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        finally:
            theirs.close()
            os.close(memory)
        self._connection: Any = Connection(ours.detach())
        self._ready = False
        self._started = time.monotonic()
        self._connection.send(sys.path)
        self._connection.send_bytes(pickle.dumps(make))

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._started

    def is_ready(self, timeout: float) -> bool:
        """Whether it can take frames, waiting up to `timeout` seconds. Raises WorkerError where it never will."""
        if not self._ready and self._poll(timeout):
            answer = self._receive()
            if answer.error:
                raise WorkerError(answer.error)
            self._ready = True
        return self._ready

    def send(self, number: int, frame: Frame) -> None:
        """Hand it a frame; the planes are copied. The answer to the last one must have been taken."""
        task = Task.of(number, frame)
        if frame.luma.size + frame.chroma.size > ROOM:
            raise WorkerError(f"a picture of {frame.width}x{frame.height} is too large to segment live")
        luma, chroma = task.planes(self._memory)
        np.copyto(luma, frame.luma)
        np.copyto(chroma, frame.chroma)
        try:
            self._connection.send(task)
        except OSError:
            raise WorkerError(self._death()) from None

    def answer(self, timeout: float) -> Answer | None:
        """Its answer, waiting up to `timeout` seconds; None where there is none yet. Raises WorkerError once it has died."""
        return self._receive() if self._poll(timeout) else None

    def close(self) -> None:
        """End the process, at once, and release what belonged to it."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        with suppress(BufferError):  # an array still lies in it: it goes with that
            self._memory.close()

    def _poll(self, timeout: float) -> bool:
        try:
            return bool(self._connection.poll(min(timeout, _SLICE)))
        except OSError:
            raise WorkerError(self._death()) from None

    def _receive(self) -> Answer:
        try:
            answer: Answer = self._connection.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerError(self._death()) from None
        return answer

    def _death(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "the segmenter has closed its connection"
        return f"the segmenter was killed by signal {-code}" if code < 0 else f"the segmenter ended with status {code}"
