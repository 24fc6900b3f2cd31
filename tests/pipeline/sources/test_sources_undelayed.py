"""Live pictures without waiting for the next one, and whatever else a packet may hold."""

from __future__ import annotations

import errno
import io
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from typing import Any
from unittest.mock import Mock

import av
import numpy as np
import pytest

from cliprl.engines import CliprlError
from cliprl.pipeline.sources import network, open_source
from cliprl.pipeline.sources.decoding import packet_queue
from cliprl.pipeline.sources.decoding.low_latency import ParserBypass, slices_in
from cliprl.pipeline.sources.errors import Problem, SourceError

PICTURES = 90
_SLICE, _KEY, _SETTINGS, _FIRST, _LATER = b"\0\0\1\x41", b"\0\0\1\x65", b"\0\0\1\x67\x88", b"\x9a\0", b"\x42\0"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", (0, 0)),
        (_SETTINGS + _SETTINGS, (0, 0)),
        (_SETTINGS + _KEY + _FIRST, (1, 1)),
        (b"\0" + _SLICE + _FIRST + _SLICE + _LATER, (2, 1)),
        (_SLICE + _LATER, (1, 0)),
        (_SLICE + _FIRST + _SLICE + _FIRST, (2, 2)),
        (_SLICE + _FIRST + b"\0\0\1", (1, 1)),
        (_SLICE, (0, 0)),
    ],
)
def test_slices_are_counted(data: bytes, expected: tuple[int, int]) -> None:
    assert slices_in(data) == expected


def encoded(codec: str = "libx264", **options: str) -> tuple[av.VideoStream, list[av.Packet]]:
    """A stream of pictures that are dark and bright in turn, and its packets."""
    stream = av.open(io.BytesIO(), "w", format="mpegts").add_stream(codec, rate=25)
    if codec == "libx265":  # it would print its figures when it is collected, in another test
        options["x265-params"] = "log-level=none"
    stream.width, stream.height, stream.options = 320, 240, {"tune": "zerolatency", "g": "10"} | options
    images = [np.full((360, 320), 40 + 150 * (n % 2), np.uint8) for n in range(PICTURES)]
    packets = [p for image in images for p in stream.encode(av.VideoFrame.from_ndarray(image, "yuv420p"))]
    return stream, [*packets, *stream.encode(None)]


def as_transport_stream(stream: av.VideoStream, payloads: Sequence[bytes]) -> bytes:
    """MPEG-TS with one packet for each payload, its length stated."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts", options={"omit_video_pes_length": "0"}) as container:
        track = container.add_stream(stream.codec_context.name, rate=25)
        track.width, track.height, track.codec_context.extradata = 320, 240, stream.codec_context.extradata
        for number, payload in enumerate(payloads):
            packet = av.Packet(payload)
            packet.stream, packet.time_base = track, Fraction(1, 90000)
            packet.pts = packet.dts = number * 3600
            container.mux(packet)
    return file.getvalue()


@contextmanager
def served(data: bytes, hold: threading.Event) -> Iterator[str]:
    """An address that gives `data`, and hangs up only after `hold`."""
    server = socket.create_server(("127.0.0.1", 0))

    def give() -> None:
        with suppress(OSError):
            wire, _ = server.accept()
            with wire:
                wire.sendall(data)
                hold.wait(60)

    giver = threading.Thread(target=give, daemon=True)
    giver.start()
    try:
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
    finally:
        hold.set()
        server.close()
        giver.join(30)


def levels(url: str, hold: threading.Event, last: float) -> list[bool]:
    """Whether each picture is bright, to the one at `last` seconds; only then may the other end hang up."""
    bright = []
    with open_source(url) as source:
        while (frame := source.read()) is not None:
            bright.append(bool(frame.luma[100, 100] > 128))
            if frame.seconds >= last:
                hold.set()
    return bright


def test_the_last_picture_is_there_while_the_camera_waits() -> None:
    """The parser would keep it back until the next one, which never comes; reading would then end by the timeout."""
    stream, packets = encoded()
    hold = threading.Event()
    with served(as_transport_stream(stream, [bytes(p) for p in packets]), hold) as url:
        bright = levels(url, hold, (PICTURES - 1) / 25 - 0.001)
        assert hold.is_set()
    assert bright == [bool(n % 2) for n in range(PICTURES)][-len(bright) :]
    assert len(bright) > 3


@pytest.mark.parametrize(
    ("data", "alone"),
    [
        (_KEY + _FIRST + _SLICE + _LATER, True),
        (_SETTINGS, True),
        (2 * (_SLICE + _FIRST), False),
        (_SLICE + _LATER, False),
    ],
)
def test_packets_of_other_than_one_frame_end_low_latency(data: bytes, alone: bool) -> None:
    stream, packets = encoded()
    hold = threading.Event()
    hold.set()
    with (
        served(as_transport_stream(stream, [bytes(p) for p in packets]), hold) as url,
        av.open(url, options={"fflags": "noparse"}) as container,
    ):
        undelayed = ParserBypass(container, container.streams.video[0].codec_context)
        assert undelayed.is_on
        undelayed.look(data)
        assert undelayed.is_on is alone


@pytest.mark.parametrize("kind", ["two pictures in a packet", "fields", "HEVC", "MPEG-2"])
def test_what_needs_the_parser_gets_it(kind: str) -> None:
    codec = {"HEVC": "libx265", "MPEG-2": "mpeg2video"}.get(kind, "libx264")
    options = {"x264-params": "interlaced=1"} if kind == "fields" else {}
    stream, packets = encoded(codec, **options)
    payloads = [bytes(p) for p in packets]
    if kind == "two pictures in a packet":
        payloads = [b"".join(payloads[n : n + 2]) for n in range(0, PICTURES, 2)]
    hold = threading.Event()
    hold.set()
    with served(as_transport_stream(stream, payloads), hold) as url:
        bright = levels(url, hold, 0)
    assert len(bright) > 12
    assert all(a != b for a, b in zip(bright[-12:], bright[-11:], strict=False)), bright


@pytest.mark.parametrize(
    ("first", "second"), [("libx264", "libx265"), ("libx265", "mpeg2video"), ("mpeg2video", "libx264")]
)
def test_a_live_stream_goes_on_in_another_codec(first: str, second: str) -> None:
    """Its frames were lost, or noise of the wrong decoder, for as long as the sender stayed with the new codec."""
    parts = [encoded(codec) for codec in (first, second)]
    data = b"".join(as_transport_stream(stream, [bytes(p) for p in packets]) for stream, packets in parts)
    hold = threading.Event()
    hold.set()
    with served(data, hold) as url, open_source(url) as source:
        last = list(source)[-1]
        assert last.seconds > 1.9 * PICTURES / 25
        assert last.luma[100, 100] > 128
        assert any("the codec changes" in note for note in source.info.notes)


class Wrapped:
    """A decoder in the place of libav's, which passes all on."""

    notes: Sequence[str] = ()

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def close(self) -> None:
        return


def test_codec_change_reopens_a_stream_with_its_own_decoder() -> None:
    parts = [encoded(codec) for codec in ("libx264", "libx265")]
    data = b"".join(as_transport_stream(stream, [bytes(p) for p in packets]) for stream, packets in parts)
    hold = threading.Event()
    hold.set()
    with (
        served(data, hold) as url,
        open_source(url, decoder=Wrapped) as source,
        pytest.raises(CliprlError, match="changes to hevc"),
    ):
        list(source)


def test_a_sender_that_goes_on_with_other_streams_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """libav reads on and waits for none of its own packets: the picture stayed away for ever."""
    monkeypatch.setattr(packet_queue, "SILENCE", 0.2)
    hold = threading.Event()
    stream, packets = encoded()
    with served(as_transport_stream(stream, [bytes(p) for p in packets]), hold) as url, open_source(url) as source:
        with pytest.raises(SourceError) as caught:
            list(source)
        assert caught.value.problem is Problem.TIMEOUT
        hold.set()


def test_packets_that_give_no_frame_end_a_live_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, packets = encoded()
    payloads = [bytes(p) for p in packets]
    payloads += [b"\0\0\1\x41" + bytes([0x9A, 0x02]) for _ in range(9)]  # slices without a key frame
    hold = threading.Event()
    with served(as_transport_stream(stream, payloads), hold) as url, open_source(url) as source:
        monkeypatch.setattr(packet_queue, "NO_FRAME", -1.0)
        with pytest.raises(SourceError) as caught:
            list(source)
        assert caught.value.problem is Problem.CODEC
        assert source.is_undecodable
        hold.set()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_udp_port_of_another_program_is_not_taken_over(family: socket.AddressFamily) -> None:
    host, written = ("127.0.0.1", "127.0.0.1") if family == socket.AF_INET else ("::1", "[::1]")
    with socket.socket(family, socket.SOCK_DGRAM) as other:
        other.bind((host, 0))
        with pytest.raises(CliprlError, match="another program receives on port"):
            open_source(f"udp://{written}:{other.getsockname()[1]}")


def test_a_system_without_ipv6_checks_no_port_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_received", set())
    monkeypatch.setattr(socket, "socket", Mock(side_effect=OSError(errno.EAFNOSUPPORT, "no such family")))
    network._check_free("udp://[::1]:5000")
