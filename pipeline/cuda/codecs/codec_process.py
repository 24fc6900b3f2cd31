"""A hardware codec in a separate process: its driver may crash or hang without any effect on the display.

PyAV holds that lock while libav opens a codec or downloads a surface, and an ill driver never returns.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from mmap import mmap
from typing import Any

import av.logging

from cliprl.engines import CliprlError
from cliprl.pipeline.core.child_process import ChildProcess, answer_messages

# Answers a message; frames lie in the shared memory. Called in the process.
Work = Callable[[Any, mmap], Any]
WorkFactory = Callable[[mmap], Work]
_PROGRAM = "from cliprl.pipeline.cuda.codecs.codec_process import main; main()"


class CodecProcess(ChildProcess):
    """A process that answers messages with the function that `make` returns. For one thread at a time.

    `make` gets the shared memory. Messages must be short: a process that hangs reads none, and long ones would wait for it. Every
    method raises `failure`, in one line, if the process has ended, hangs, or answers with an error; it is killed then.
    """

    def __init__(self, make: WorkFactory, name: str, failure: type[CliprlError], data: bytes = b"") -> None:
        super().__init__(_PROGRAM, make, name, failure, data)

    def call(self, message: Any, seconds: float) -> Any:
        """Return the answer to a message."""
        self.send(message)
        limit = time.monotonic() + seconds
        while not self.poll(max(limit - time.monotonic(), 0.0)):
            if time.monotonic() > limit:
                self.close()
                raise self._failure(f"{self._name} has hung for {seconds:g} s")
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
    answer_messages(_prepare)


def _prepare(make: WorkFactory, memory: mmap) -> Callable[[Any], Any]:
    work = make(memory)
    return lambda message: work(message, memory)
