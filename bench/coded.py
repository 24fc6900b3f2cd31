"""A camera whose pictures carry their number: whoever sees one at the other end knows how old it is.

The pictures are encoded beforehand, so that the camera costs the machine next to nothing, and sent as MPEG-TS over TCP on
loopback, where nothing is lost on the way.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from cliprl.bench.repeated import RepeatedSource
from cliprl.engines import UsageError
from cliprl.pipeline.cuda import timecode
from cliprl.pipeline.frame import Plane
from cliprl.pipeline.protocols import StreamInfo
from cliprl.pipeline.sinks.encoder import live_encoder
from cliprl.pipeline.sinks.network import MPEGTS

# Numbers start again after so many pictures: many more than could ever be on their way.
LOOP = 250
_TIME_BASE = Fraction(1, 90_000)
_CRF = 20


def coded_clip(clip: str | Path, rate: int, folder: Path) -> Path:
    """`LOOP` pictures of a clip (again and again), numbered, as MPEG-TS. Raises UsageError where a number has no room."""
    path = folder / "coded.ts"
    with RepeatedSource(clip, rate) as source, av.open(str(path), "w", format="mpegts") as container:
        check_width(source.info)
        encoder: Any = None
        for number in range(LOOP):
            frame = source.read()
            if frame is None:
                break
            timecode.write(frame.luma, number)
            encoder = encoder or live_encoder(container, frame, source.info, _CRF, "ultrafast", 1.0)
            container.mux(encoder.encode(frame))
        container.mux(encoder.flush())
    return path


def check_width(info: StreamInfo) -> None:
    """Raise UsageError where a picture has no room for a number."""
    least = timecode.BITS * timecode.BLOCK
    if info.width < least:
        raise UsageError(
            f"{info.name} is {info.width} pixels wide: {least} are needed for a time code, give a wider clip"
        )


def number_in(luma: Plane) -> int | None:
    """The number in a picture's luma (H, W); None where it can't be read."""
    return timecode.read(np.ascontiguousarray(luma[: timecode.BLOCK]))


def numbers_in(path: Path) -> Iterator[int | None]:
    """The number of every picture in a video file."""
    with av.open(str(path)) as container:
        for picture in container.decode(video=0):
            plane: Any = picture.planes[0]
            yield number_in(np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : picture.width])


class _Wire:
    """A socket as a file to write to."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire

    def write(self, data: bytes) -> int:
        """Write all of it."""
        self._wire.sendall(data)
        return len(data)


class CodedCamera(threading.Thread):
    """Sends a coded clip at `rate` pictures a second, without end, to the first who connects to `url`."""

    def __init__(self, clip: Path, rate: int) -> None:
        super().__init__(name="camera", daemon=True)
        self._clip, self._rate = clip, rate
        # Not libav's own server: PyAV holds the interpreter's lock while that one waits.
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._start = math.nan
        self._ended = threading.Event()

    def age(self, number: int, moment: float) -> float:
        """Seconds from when picture `number` was due to `moment` (`time.monotonic()`): the last one of that number before it."""
        newest = int((moment - self._start) * self._rate)
        index = newest - (newest - number) % LOOP
        return self.age_of(index, moment)

    def age_of(self, index: int, moment: float) -> float:
        """Seconds from when the picture `index`, counted from the first that was sent, was due to `moment`."""
        return moment - self._start - index / self._rate

    def stop(self) -> None:
        """Hang up, and end the thread."""
        self._ended.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes who waits for somebody to connect
        self._server.close()
        self.join(5)

    def run(self) -> None:
        """The thread's body."""
        with suppress(av.FFmpegError, OSError):  # the other end may go first
            viewer, _ = self._server.accept()
            viewer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with (
                viewer,
                av.open(_Wire(viewer), "w", format="mpegts", options=MPEGTS | {"flush_packets": "1"}) as container,
            ):
                self._send(container)

    def _send(self, container: Any) -> None:
        stream: Any = None
        for index, packet in enumerate(self._packets()):
            if stream is None:
                stream = container.add_stream_from_template(packet.stream)
                self._start = time.monotonic()
            if self._ended.wait(max(self._start + index / self._rate - time.monotonic(), 0.0)):
                return
            packet.stream, packet.time_base = stream, _TIME_BASE
            packet.pts = packet.dts = round(index / self._rate / _TIME_BASE)
            container.mux(packet)

    def _packets(self) -> Iterator[Any]:
        while not self._ended.is_set():
            with av.open(str(self._clip)) as clip:
                yield from (packet for packet in clip.demux(video=0) if packet.size)
