"""Hundreds of clients that only sit there, while a stream is displayed and recorded: nobody else notices."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import av
import pytest
from waiting import until

pytest.importorskip("aiortc", reason="the extra `live` is not installed")
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="handles are counted in /proc")

COMMAND = str(Path(sys.executable).with_name("cliprl-stream"))
# Seconds after which a test gives up waiting for what has to come.
LIMIT = 120.0
IDLE = HALF_SENT = 300
# Handles of the process; 600 connections would take more than all of them.
HANDLES = 512
HALVES = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    b"POST /api/controls HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
    b"GET /stream.mjpg HTTP/1.1\r\nHo",
)


def few_handles() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (HANDLES, HANDLES))


def fetch(url: str, body: object = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT) as answer:
        content: bytes = answer.read()
        return content


def count(url: str, name: str) -> float:
    match = re.search(rf"^{name} (\S+)$", fetch(url + "metrics").decode(), re.MULTILINE)
    assert match
    return float(match[1])


def workers(handles: Path) -> int:
    """Number of segmenting processes: each shares a piece of memory with the display."""
    found = 0
    for handle in handles.iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            found += "cliprl-frame" in os.readlink(handle)
    return found


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*_raw*.mp4")) if folder.exists() else []


def frames(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_600_idle_or_unfinished_connections_cost_no_frame_or_handle(tmp_path: Path) -> None:
    words = [COMMAND, "demo:?size=160x128&seconds=0&rate=5", "--web", "127.0.0.1:0", "--record", "kept"]
    words += ["--record-what", "raw", "--segment-minutes", "0.02", "--json"]
    pipe = subprocess.PIPE
    with (
        subprocess.Popen(words, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, preexec_fn=few_handles) as process,
        ExitStack() as opened,
    ):
        opened.callback(process.kill)
        assert process.stderr is not None
        match = re.search(r"http://127\.0\.0\.1:(\d+)/", line := process.stderr.readline())
        assert match, line
        url, address = match[0], ("127.0.0.1", int(match[1]))
        until(lambda: re.search(r'mask_state\{state="(?:fresh|aged)"\} 1', fetch(url + "metrics").decode()))
        handles = Path(f"/proc/{process.pid}/fd")
        until(lambda: workers(handles) == 2)  # the second is the spare, which starts after a second of segmentation
        stream = opened.enter_context(closing(socket.create_connection(address, timeout=LIMIT)))
        stream.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        stream.recv(1 << 16)
        before, begun = len(os.listdir(handles)), len(segments(tmp_path / "kept"))

        with ExitStack() as hostile:
            for number in range(IDLE + HALF_SENT):
                client = hostile.enter_context(closing(socket.create_connection(address, timeout=LIMIT)))
                if number % 2:
                    client.sendall(HALVES[number // 2 % len(HALVES)])
            displayed, dropped = (count(url, f"cliprl_frames_{kind}_total") for kind in ("displayed", "dropped"))
            until(lambda: len(segments(tmp_path / "kept")) > begun + 1)  # files are opened in the thick of it
            assert len(os.listdir(handles)) < HANDLES - 64
            assert b"viewer.js" in fetch(url)
            assert json.loads(fetch(url + "api/controls", {"opacity": 0.3}))["opacity"] == 0.3
            assert fetch(url + "snapshot.png").startswith(b"\x89PNG")
            assert stream.recv(1 << 16)
            until(lambda: count(url, "cliprl_frames_displayed_total") > displayed + 20)
            assert count(url, "cliprl_frames_dropped_total") == dropped
            assert count(url, "cliprl_recording") == 1
        until(lambda: len(os.listdir(handles)) <= before)

        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=LIMIT)
    assert len(error.splitlines()) < 20, error
    summary = json.loads(output)
    assert [
        note for note in summary["notes"] if not note.startswith("playing took")
    ] == []  # a busy machine renders slowly
    assert sum(frames(path) for path in segments(tmp_path / "kept")) == summary["frames"]
