"""The worker process of an archive on this machine: it reads jobs as lines from standard input, and writes a reply for each.

It is started with the process ID of its driver, and ends with the driver. Standard output carries only the replies: what a
library prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress

from cliprl.pipeline.archive.jobs import VideoJob
from cliprl.pipeline.archive.worker import WorkerSetup, perform

READY = b"ready\n"
# Of Linux: the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Perform jobs until standard input ends. Its first line is the setup, the arguments are driver and device."""
    _end_with(int(sys.argv[1]))
    replies = os.dup(1)
    os.dup2(2, 1)
    setup, device = WorkerSetup.from_json(sys.stdin.buffer.readline()), sys.argv[2]
    os.write(replies, READY)
    while line := sys.stdin.buffer.readline():
        reply = perform(setup, VideoJob.from_json(line), device)
        _write(replies, reply.to_json().encode() + b"\n")


def _write(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _end_with(parent: int) -> None:
    """Let the kernel end this process with its parent, also in the middle of a job."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before
        sys.exit(1)
