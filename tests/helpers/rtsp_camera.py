"""An RTSP camera in this process: H.264 packets in RTP over TCP, at 25 a second, from the first to the last and then no more."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any

_START = b"\0\0\1"
_LARGEST, _TYPE, _FRAGMENT = 1300, 0x1F, 28
_TICKS, _FIRST_TIME = 3600, 1_234_567
_DESCRIPTION = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\na=control:*\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:video\r\n"
)


class RtspCamera:
    """Sends `frames` (access units with start codes) to each client that plays `url`, but for those at the places `lost`."""

    def __init__(self, frames: Sequence[bytes], *, lost: Sequence[int] = ()) -> None:
        self._frames, self._lost = frames, lost
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._listener.getsockname()[1]}/live"
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End sending."""
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, client.makefile("rb") as requests:
            while line := requests.readline():
                if not line.strip().endswith(b"RTSP/1.0"):  # reports on the reception, between requests
                    continue
                method, fields = line.split()[0], dict[str, str]()
                while text := requests.readline().decode("latin-1").strip():
                    name, _, value = text.partition(": ")
                    fields[name.lower()] = value
                answer = {
                    b"OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n\r\n",
                    b"DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(_DESCRIPTION)}\r\n\r\n{_DESCRIPTION}",
                    b"SETUP": "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n\r\n",
                }.get(method, "Session: 1\r\n\r\n")
                client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {fields['cseq']}\r\n{answer}".encode())
                if method == b"PLAY":
                    self._play(client)
                    return

    def _play(self, client: socket.socket) -> None:
        sequence, started = 0, time.monotonic()
        for index, frame in enumerate(self._frames):
            if self._ended.wait(max(started + index / 25 - time.monotonic(), 0)):
                return
            if index in self._lost:
                sequence += 1
                continue
            for payload, is_last in _payloads(frame):
                header = struct.pack(">BBHII", 0x80, 96 | is_last << 7, sequence, _FIRST_TIME + index * _TICKS, 7)
                sequence += 1
                try:
                    client.sendall(struct.pack(">cBH", b"$", 0, len(header + payload)) + header + payload)
                except OSError:
                    return
        self._ended.wait()


def _payloads(frame: bytes) -> list[tuple[bytes, bool]]:
    """Split a frame into the payloads of RTP packets (RFC 6184), the last one marked."""
    found: list[Any] = []
    for unit in filter(None, (part.rstrip(b"\0") for part in frame.split(_START))):
        if len(unit) <= _LARGEST:
            found.append(unit)
            continue
        parts = [unit[at : at + _LARGEST] for at in range(1, len(unit), _LARGEST)]
        for number, part in enumerate(parts):
            place = 0x80 if number == 0 else 0x40 if number == len(parts) - 1 else 0
            found.append(bytes([unit[0] & 0xE0 | _FRAGMENT, place | unit[0] & _TYPE]) + part)
    return [(payload, number == len(found) - 1) for number, payload in enumerate(found)]
