"""Processes forked from one that has imported what they need: a test can kill fifty without fifty imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import TracebackType

_SERVE = """
import os, sys
while word := sys.stdin.readline().rstrip():
    child = os.fork()
    if not child:
        print(os.getpid(), flush=True)
        main(word)
        sys.stdout.flush()
        os._exit(0)
    sys.stdin.readline()
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


class Forked:
    """One process that runs `code` and forks children, one at a time; each calls the `main(word)` that `code` defines."""

    def __init__(self, code: str) -> None:
        command = [sys.executable, "-c", code + _SERVE]
        self._server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, word: object) -> int:
        """Begin a child; returns its process ID right before it calls `main`."""
        assert self._server.stdin is not None
        print(word, file=self._server.stdin, flush=True)
        return int(self._line())

    def wait(self) -> int:
        """The status with which the child ended: 0, or minus the number of the signal that ended it."""
        assert self._server.stdin is not None
        print(file=self._server.stdin, flush=True)
        word, status = self._line().split()
        assert word == "ended"
        return os.waitstatus_to_exitcode(int(status))

    def kill(self, child: int) -> int:
        """Kill the child. Until `wait` asks for its status no other process gets its ID, even if it has ended."""
        os.kill(child, signal.SIGKILL)
        return self.wait()

    def _line(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        if kind is not None:
            self._server.kill()
        assert self._server.wait(timeout=60) == 0 or kind is not None
