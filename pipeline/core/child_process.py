"""A process for work that may crash or hang, with a connection and shared memory.

`ChildProcess` is the parent's side, `child_ends` gives the child its own. Unlike with `multiprocessing`, the parent's main module
is not imported again.
"""

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

from cliprl.engines import CliprlError

# The parent waits for answers in steps of this many seconds, so that it can be stopped.
_POLL_S = 0.1
# Seconds that a killed process has to end.
_END_S = 0.2


class ChildProcess:
    """A process that runs the Python code `program`, which calls `child_ends`. For one thread at a time.

    `name` is its name in errors. memory: bytes shared with it; unused pages take no memory. It ends when the connection closes.
    Every method that talks to it raises `failure` if it has ended.
    """

    def __init__(self, program: str, memory_bytes: int, name: str, failure: type[CliprlError] = CliprlError) -> None:
        """Start the process. It needs a second or more until it answers."""
        parent_end, child_end = socket.socketpair()
        memory = os.memfd_create("cliprl-frame")
        try:
            os.ftruncate(memory, memory_bytes)
            self.memory = mmap(memory, memory_bytes)
            descriptors = (child_end.fileno(), memory)
            command = [sys.executable, "-c", program, *map(str, (*descriptors, memory_bytes))]
            self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)
        finally:
            child_end.close()
            os.close(memory)
        self._connection: Any = Connection(parent_end.detach())
        self._name, self._failure = name, failure
        self._started = time.monotonic()
        self.send(sys.path)

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._started

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

    def receive(self) -> Any:
        """Return the next answer; waits for it."""
        try:
            return self._connection.recv()
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


def child_ends() -> tuple[Any, mmap]:
    """In the child: the connection to the parent and the shared memory; modules are imported from where the parent's are."""
    connection: Any = Connection(int(sys.argv[1]))
    sys.path[:] = connection.recv()
    return connection, mmap(int(sys.argv[2]), int(sys.argv[3]))


def one_line(error: BaseException) -> str:
    """Return an exception as one line for the user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, CliprlError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
