"""A hardware codec in a separate process: its driver may crash or hang without any effect on the display.

PyAV holds that lock while libav opens a codec or downloads a surface, and an ill driver never returns.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections.abc import Callable
from mmap import mmap
from typing import Any

import av.logging

from cliprl.engines import CliprlError
from cliprl.engines.cli.signals import leave_to_parent
from cliprl.pipeline.core.child_process import ChildProcess, child_ends, one_line

# Answers a message; frames lie in the shared memory. Called in the process.
Work = Callable[[Any, mmap], Any]
WorkFactory = Callable[[mmap], Work]
# Bytes for the frames of one message: 8192x8192, or 16 of 1080p; unused pages take no memory.
SHARED_BYTES = 8192 * 8192 * 3 // 2
_PROGRAM = "from cliprl.pipeline.cuda.codecs.codec_process import main; main()"


class CodecProcess(ChildProcess):
    """A process that answers messages with the function that `make` returns, which is pickled by name. For one thread at a time.

    `make` gets the shared memory, which begins with `data`. Messages must be short: a process that hangs reads none, and long
    ones would wait for it. Every method raises `failure`, in one line, if the process has ended, hangs, or answers with an error;
    it is killed then.
    """

    def __init__(self, make: WorkFactory, name: str, failure: type[CliprlError], data: bytes = b"") -> None:
        super().__init__(_PROGRAM, SHARED_BYTES, name, failure)
        self._ready = False
        self.memory[: len(data)] = data
        self.send(pickle.dumps(make))

    def is_ready(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds and return whether it accepts messages."""
        if not self._ready:
            limit = time.monotonic() + timeout
            while not (found := self.poll(limit - time.monotonic())) and time.monotonic() < limit:
                pass
            if found:
                self._answer()
                self._ready = True
        return self._ready

    def call(self, message: Any, seconds: float) -> Any:
        """Return the answer to a message."""
        self.send(message)
        limit = time.monotonic() + seconds
        while not self.poll(max(limit - time.monotonic(), 0.0)):
            if time.monotonic() > limit:
                self.close()
                raise self._failure(f"{self._name} has hung for {seconds:g} s")
        return self._answer()

    def _answer(self) -> Any:
        value, error = self.receive()
        if error:
            self.close()
            raise self._failure(error)
        return value


def libav_errors() -> None:
    """In the process: attach libav's last message to its errors, and print none."""
    av.logging.set_level(av.logging.ERROR)
    logger = logging.getLogger("libav")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False


def main() -> None:
    """Answer messages until the parent closes the connection."""
    leave_to_parent()
    connection, memory = child_ends()
    try:
        _serve(connection, memory)
    except (EOFError, ConnectionError):
        return


def _serve(connection: Any, memory: mmap) -> None:
    try:
        work: Work = pickle.loads(connection.recv())(memory)
    except Exception as error:
        connection.send((None, one_line(error)))
        return
    connection.send((None, ""))
    while True:
        message = connection.recv()
        try:
            reply = (work(message, memory), "")
        except Exception as error:
            reply = (None, one_line(error))
        connection.send(reply)
