"""A screen on loopback: a live output whose other end decodes it in a process of its own, and says when it saw which picture."""

from __future__ import annotations

import io
import multiprocessing
import socket
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from cliprl.bench.coded import number_in
from cliprl.engines import CliprlError
from cliprl.engines.signals import leave_to_parent
from cliprl.pipeline import Frame, Segmentation
from cliprl.pipeline.protocols import StreamInfo
from cliprl.pipeline.sinks.encoder import live_encoder

_CRF, _KEY_SECONDS = 23, 1.0
# Bytes of a picture's length.
_LENGTH = 4
# Seconds that the other end has to start, and to show what is on its way at the end.
_PATIENCE = 60.0
# When a picture was decoded, in `time.monotonic()`, which all processes share, and its number; None where it can't be read.
Sighting = tuple[float, int | None]


class Screen:
    """A sink: encodes pictures as the program's network outputs do, and sends them over TCP, each with its length before it.

    Nothing is lost on such a way, and the other end has nothing to find out about the stream before it shows a picture.

    Opening it starts the other end, and waits for it. Raises CliprlError where that does not come.
    """

    def __init__(self, info: StreamInfo) -> None:
        self._info = info
        self._encoder: Any = None
        context = multiprocessing.get_context("spawn")
        self._sightings, there = context.Pipe(duplex=False)
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(_PATIENCE)
            self._process = context.Process(target=_look, args=(server.getsockname(), there), daemon=True)
            self._process.start()
            there.close()
            try:
                self._wire, _ = server.accept()
            except OSError as error:
                self._process.kill()
                raise CliprlError(f"the display on loopback did not start ({error}): measure again") from error
        self._wire.settimeout(None)
        self._wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Nothing is written to it: the encoder belongs to a container.
        self._container: Any = av.open(io.BytesIO(), "w", format="h264")

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Send one picture."""
        if self._encoder is None:
            self._encoder = live_encoder(self._container, frame, self._info, _CRF, "ultrafast", _KEY_SECONDS)
            self._encoder.repeat_headers()
        for packet in self._encoder.encode(frame):
            data = bytes(packet)
            self._wire.sendall(len(data).to_bytes(_LENGTH, "big") + data)

    def seen(self) -> list[Sighting]:
        """What has been shown and was not told yet; once closed, all that was still on its way."""
        found: list[Sighting] = []
        with suppress(EOFError):
            while self._sightings.poll(_PATIENCE if self._wire.fileno() < 0 else 0):
                found.append(self._sightings.recv())
        return found

    def close(self) -> None:
        """Hang up. Calling it twice is harmless."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _look(address: tuple[str, int], line: Connection) -> None:
    """The other end: shows each picture as soon as it has come."""
    leave_to_parent()  # it ends with the stream
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    with socket.create_connection(address) as wire, wire.makefile("rb") as pictures:
        while len(length := pictures.read(_LENGTH)) == _LENGTH:
            data = pictures.read(int.from_bytes(length, "big"))
            for picture in decoder.decode(av.Packet(data)):
                plane = picture.planes[0]
                luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : picture.width]
                line.send((time.monotonic(), number_in(luma)))
