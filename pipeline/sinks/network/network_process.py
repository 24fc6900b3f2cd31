"""The network connection of an output, in a separate process, so that a slow server does not block this one.

PyAV holds the interpreter's lock while libav connects, and some servers accept a connection and then send nothing: in this
process that would stop the display. So encoded frames go through a pipe, as NUT, to a child process that sends them on.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import av

from cliprl.pipeline.sinks.atomic_file import write_all

MUXER = "nut"
_PROGRAM = "from cliprl.pipeline.sinks.network.network_process import main; main()"
# Seconds for the child to start, for the other end to answer, for it to take what is sent, and for the child to end.
_START, _ANSWER, _STUCK, _END = 60.0, 8.0, 5.0, 2.0
_TIMEOUT = (5.0, 5.0)
# One frame is enough to probe the stream.
_PROBE = {"probesize": "32", "analyzeduration": "0", "fpsprobesize": "0"}
_STARTED, _CONNECTED = "started", "connected"


class NetworkProcess:
    """Passes NUT that is written to it on to `url`, in libav's `format` with its `options`. A file for PyAV to write to."""

    def __init__(self, url: str, format: str, options: Mapping[str, str]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._in, self._out = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._in, False)
        self._said = ""
        self._started = self._connected = False
        # Not on the command line, where everybody could read the password.
        write_all(self._write, json.dumps([url, format, dict(options)]).encode() + b"\n")

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`. Raises OSError if the child does not take it."""
        if not self._started:  # a first frame that the pipe can't hold would count as stuck
            self._started = True
            self._wait_for(_STARTED, _START)
        return write_all(self._write, data)

    def _write(self, data: memoryview) -> int:
        if not select.select([], [self._in], [], _STUCK)[1]:
            raise TimeoutError(f"it has taken nothing for {_STUCK:g} s")
        try:
            return os.write(self._in, data)
        except BrokenPipeError:
            self._hear(_END)
            raise OSError(self._said.strip() or "the connection has ended") from None

    def check(self) -> None:
        """After a frame was written: wait until the other end has answered, once. Raises OSError if it has not, or left."""
        if self._connected:
            return
        self._wait_for(_CONNECTED, _ANSWER)
        self._connected = True

    def close(self) -> None:
        """End the child: in good order where it takes no time, else at once."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(_END if self._connected else 0)
        self._child.kill()
        self._child.wait()
        self._child.stdout.close()

    def _wait_for(self, word: str, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not self._said.startswith(f"{word}\n"):
            left = limit - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no answer within {seconds:g} s")
            if not self._hear(left):
                raise OSError(self._said.strip() or "the connection has ended")
        self._said = self._said.removeprefix(f"{word}\n")

    def _hear(self, seconds: float) -> bool:
        """Wait for output of the child. Returns whether more can follow."""
        if not select.select([self._out], [], [], seconds)[0]:
            return True
        heard = os.read(self._out, 4096)
        self._said += heard.decode(errors="replace")
        return bool(heard)


def main() -> None:
    """The child: read where to, then frames; send them on until they end."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal's signals are for the program that started this one
        signal.signal(number, signal.SIG_IGN)
    data = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - unbuffered: what is there is passed on at once
    url, format, options = json.loads(data.readline())
    _say(_STARTED)
    try:
        _pass_on(data, url, format, options)
    except (OSError, ValueError, av.FFmpegError) as error:
        _say(str(getattr(error, "strerror", None) or error))


def _pass_on(data: Any, url: str, format: str, options: dict[str, str]) -> None:
    with suppress(ValueError):  # its text may hold the password
        if host := urlsplit(url).hostname:  # a listener has none: srt://:9000?mode=listener
            socket.getaddrinfo(host, None)  # libav calls an unknown name an input/output error
    with (
        av.open(data, format=MUXER, options=_PROBE) as source,
        av.open(url, "w", format=format, container_options=options, timeout=_TIMEOUT) as sink,
    ):
        stream = sink.add_stream_from_template(source.streams.video[0])
        sink.start_encoding()
        _say(_CONNECTED)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                sink.mux(packet)


def _say(text: str) -> None:
    with suppress(OSError):
        os.write(1, f"{' '.join(text.split())}\n".encode())
