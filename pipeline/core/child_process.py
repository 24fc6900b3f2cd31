"""A process for work that may crash or hang, with a connection and shared memory.

`ChildProcess` is the parent's side, `answer_messages` the child's. Unlike with `multiprocessing`, the parent's main module is not
imported again.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from mmap import mmap
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from cliprl.engines import CliprlError
from cliprl.engines.cli.signals import leave_to_parent
from cliprl.pipeline.core.frame import Plane

# Bytes of shared memory: for the planes of 8192x8192, or of 16 frames of 1080p; unused pages take no memory.
SHARED_BYTES = 8192 * 8192 * 3 // 2
# The parent waits for answers in steps of this many seconds, so that it can be stopped.
_POLL_S = 0.1
# Seconds that a killed process has to end.
_END_S = 0.2


class ChildProcess:
    """A process that runs the Python code `program`, which calls `answer_messages` with `make`. For one thread at a time.

    `make` is pickled by name. `name` is the name of the process in errors. memory: `SHARED_BYTES` shared with it, which begin
    with `data`. It ends when the connection closes. Every method that talks to it raises `failure` if it has ended.
    """

    def __init__(self, program: str, make: Any, name: str, failure: type[CliprlError], data: bytes = b"") -> None:
        """Start the process. It needs a second or more until it is ready."""
        parent_end, child_end = socket.socketpair()
        memory = os.memfd_create("cliprl-frame")
        try:
            os.ftruncate(memory, SHARED_BYTES)
            self.memory = mmap(memory, SHARED_BYTES)
            descriptors = (child_end.fileno(), memory)
            # -P: the current folder holds no modules.
            command = [sys.executable, "-P", "-c", program, *map(str, descriptors)]
            self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        finally:
            child_end.close()
            os.close(memory)
        self._connection: Any = Connection(parent_end.detach())
        self._name, self._failure = name, failure
        self._started, self._ready = time.monotonic(), False
        self.memory[: len(data)] = data
        self.send(sys.path)
        self.send(pickle.dumps(make))

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._started

    def is_ready(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds and return whether it accepts messages. Raises `failure` if it could not start."""
        limit = time.monotonic() + timeout
        while not self._ready:
            if self.poll(max(limit - time.monotonic(), 0.0)):
                _, error = self.receive()
                if error:
                    self.close()
                    raise self._failure(error)
                self._ready = True
            elif time.monotonic() >= limit:
                break
        return self._ready

    def send(self, message: Any) -> None:
        """Send an object that can be pickled."""
        try:
            self._connection.send(message)
        except OSError:
            raise self._failure(self._cause_of_death()) from None

    def poll(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds, at most a tenth, and return whether there is an answer."""
        try:
            return bool(self._connection.poll(min(timeout, _POLL_S)))
        except OSError:
            raise self._failure(self._cause_of_death()) from None

    def receive(self) -> tuple[Any, str]:
        """Return the next answer, or None and an error in one line; waits for it."""
        try:
            value, error = self._connection.recv()
            return value, error
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._failure(self._cause_of_death()) from None

    def close(self) -> None:
        """Kill the process and release its resources. Calling it twice is harmless.

        A process that is inside a driver may end later, or never: it is not waited for.
        """
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._connection.close()
        with suppress(BufferError):  # an array still refers to it, and frees it
            self.memory.close()

    def _cause_of_death(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return f"{self._name} has closed its connection"
        return f"{self._name} was killed by signal {-code}" if code < 0 else f"{self._name} ended with status {code}"


def answer_messages(prepare: Callable[[Any, mmap], Callable[[Any], Any]]) -> None:
    """In the child: answer messages until the parent closes the connection.

    `prepare` gets the parent's `make` and the shared memory, and returns the function that answers a message. Modules are
    imported from where the parent's are.
    """
    leave_to_parent()
    connection: Any = Connection(int(sys.argv[1]))
    with suppress(EOFError, ConnectionError):
        sys.path[:] = connection.recv()
        try:
            answer = prepare(pickle.loads(connection.recv()), mmap(int(sys.argv[2]), SHARED_BYTES))
        except Exception as error:
            connection.send((None, one_line(error)))
            return
        connection.send((None, ""))
        while True:
            message = connection.recv()
            try:
                reply = (answer(message), "")
            except Exception as error:
                reply = (None, one_line(error))
            connection.send(reply)


def planes_in(memory: mmap | memoryview, height: int, width: int) -> tuple[Plane, Plane]:
    """Return the NV12 planes of a frame at the start of shared memory. Raises CliprlError if it is too large."""
    size, rows, columns = height * width, (height + 1) // 2, (width + 1) // 2
    if len(memory) < size + 2 * rows * columns:
        raise CliprlError(f"a frame of {width}x{height} is too large")
    luma = np.frombuffer(memory, np.uint8, size).reshape(height, width)
    return luma, np.frombuffer(memory, np.uint8, 2 * rows * columns, size).reshape(rows, columns, 2)


def one_line(error: BaseException) -> str:
    """Return an exception as one line for the user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CliprlError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
