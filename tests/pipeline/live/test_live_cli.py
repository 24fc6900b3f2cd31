"""`cliprl-stream` on live sources, as a user starts it: what it writes, how it ends, what it says."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import av
import live_gpu
import pytest
from gpu_host import needs_compiler
from live_camera import TestCamera, number_in
from live_faults import CLASSES
from waiting import until

from cliprl.engines import load_engines, open_bundle
from cliprl.engines.backends.gpu_discovery import find_driver
from cliprl.pipeline import OutputSpec, open_sink
from cliprl.pipeline.cli import main
from cliprl.pipeline.live.sink_thread import SinkThread

COMMAND = "import sys; from cliprl.pipeline.cli.main import main; sys.argv[0] = 'cliprl-stream'; main()"
LIMIT = 120.0


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def cliprl_stream(*arguments: str, folder: Path) -> tuple[int, str, str]:
    process = start(*arguments, folder=folder)
    out, error = process.communicate(timeout=LIMIT)
    return process.returncode, out, error


@pytest.fixture
def camera() -> Iterator[str]:
    """A camera that sends MPEG-TS over UDP for as long as the test lasts; its address."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{probe.getsockname()[1]}"
    source, ended = TestCamera(), threading.Event()
    output = SinkThread(lambda: open_sink(url, OutputSpec(source.info, CLASSES)), network=True)

    def send() -> None:
        for frame in source:
            output.put(frame, None)
            if ended.is_set():
                return

    thread = threading.Thread(target=send, daemon=True)
    output.start()
    thread.start()
    yield url
    ended.set()
    thread.join()
    output.close()


def numbers(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return [number_in(p.to_ndarray(format="gray")) for p in container.decode(video=0)]


def test_live_source_is_shown_recorded_and_ends_after_n_frames(camera: str, tmp_path: Path) -> None:
    status, _, error = cliprl_stream(
        camera, "--record", "rec", "--no-guard", "-o", "out.mkv", "--frames", "40", folder=tmp_path
    )
    assert status == 0, error
    assert "done: 40 frames" in error
    raw = numbers(next((tmp_path / "rec").glob("*_raw.mp4")))
    assert raw == sorted(set(raw)), "in order, none twice"
    assert len(raw) == 40
    assert len(numbers(next((tmp_path / "rec").glob("*_overlay.mp4")))) >= 40
    assert (tmp_path / "out.mkv").exists()


@needs_compiler
def test_with_a_gpu_in_the_worker_page_and_recordings_work(tmp_path: Path) -> None:
    """The simulated GPU in the segmenting process; the program itself opens none."""
    load_engines(open_bundle(), precision="f32", threads=1)  # compiled once, not by each worker
    command = "import cliprl.pipeline.devices.device as module; module.DEVICES['cuda'] = 'live_gpu'; " + COMMAND
    events, helpers, opened = tmp_path / "events.jsonl", Path(live_gpu.__file__).parent, tmp_path / "opened"
    given = ["demo:?size=320x240&rate=10&seed=3", "--device", "cuda", "--steps", "0", "--record", "rec"]
    given += ["--wait-ms", "60000", "--frames", "2", "-o", str(events), "--web", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *given],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(helpers), *sys.path]), "GPU_OPENED": str(opened)},
        stderr=subprocess.PIPE,
        text=True,
    )
    told, page = [], ""
    try:
        assert process.stderr is not None
        for line in process.stderr:
            told.append(line)
            if "watch at " in line:
                with urlopen(f"{line.split()[-1].rstrip('/')}/metrics", timeout=LIMIT) as answer:
                    page = answer.read().decode()
            if "has ended; the page stays" in line:
                process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 0, told
    finally:
        process.kill()
        process.wait()
    assert "cliprl_" in page
    assert '"segmented": true' in events.read_text()
    assert opened.exists()
    recorded = {path.stem.rpartition("_")[2] for path in (tmp_path / "rec").glob("*.mp4")}
    assert recorded == {"raw", "overlay"}


def test_gpu_codecs_serve_a_run_and_dead_ones_are_replaced(camera: str, tmp_path: Path) -> None:
    command = "import cliprl.pipeline.devices.device as module; module.DEVICES['cuda'] = 'live_codecs'; " + COMMAND
    helpers, fault = Path(live_gpu.__file__).parent, tmp_path / "fault"
    given = [
        camera,
        "--device",
        "cuda",
        "--no-guard",
        "--record",
        "rec",
        "--record-what",
        "raw",
        "-o",
        "live.m3u8",
        "--json",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *given],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(helpers), *sys.path]), "CODEC_FAULT": str(fault)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    starts = {
        "the raw recording: encoded on the GPU by NVENC",
        "live.m3u8: encoded on the GPU by NVENC",
        "decoded on the GPU by NVDEC",
    }
    told = ""
    timer = threading.Timer(LIMIT, process.kill)
    timer.start()
    try:
        assert process.stderr is not None
        for line in process.stderr:
            told += f"{line.strip()} "
            if starts and all(start in told for start in starts):
                starts.clear()
                fault.write_text("die")
            if "ended with status 3" in told and process.poll() is None:
                process.send_signal(signal.SIGINT)
                break
        assert process.stdout is not None
        notes = json.loads(process.stdout.read())["notes"]
        assert process.wait(LIMIT) == 130, told
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    assert any("decoded on the GPU by NVDEC" in note for note in notes)
    assert sum("encoded on the CPU by libx264: no NVENC (the process of NVENC ended" in note for note in notes) == 1
    raw = [number for path in sorted((tmp_path / "rec").glob("*_raw.mp4")) for number in numbers(path)]
    assert raw == sorted(set(raw))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_live_run_in_good_order(camera: str, tmp_path: Path, number: signal.Signals) -> None:
    process = start(camera, "--record", "rec", "--record-what", "raw", folder=tmp_path)
    sizes = set[int]()

    def is_recorded() -> bool:
        """Whether the file has grown: its first fragment is there."""
        sizes.update(size for path in tmp_path.glob("rec/*.mp4") if (size := path.stat().st_size))
        return len(sizes) > 1 or process.poll() is not None

    until(is_recorded)
    process.send_signal(number)
    _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + number, error
    assert "interrupted" in error
    assert numbers(next(tmp_path.glob("rec/*.mp4")))


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("rtsp://u:word@127.0.0.1:1/a",), 1, "refused the connection"),
        (("camera:nobody has this one",), 2, "no camera is called 'nobody has this one'"),
        (("/dev/video987?size=x",), 2, "size=x must be WIDTHxHEIGHT"),
        (("demo:", "--record", "/dev/null/x"), 2, "can't record in"),
        (("demo:", "--record", "rec", "--segment-minutes", "0"), 2, "give a length above 0"),
        *((("demo:", "--record", "rec", "--device", "cuda"), 1, "device 'cuda' can't serve here: no NVIDIA driver"),)
        * (find_driver() is None),
        (("demo:", "--record", "rec", "--device", "tpu"), 2, "unknown device 'tpu'"),
        (("demo:", "-o", "gopher://x/y"), 2, "can't stream to such an address"),
    ],
)
def test_what_can_not_be_is_told_in_one_line(
    arguments: tuple[str, ...], status: int, words: str, command: Callable[..., Any], tmp_path: Path
) -> None:
    done = command(main.app, "cliprl-stream", *arguments, folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
    assert words in done.stderr
    assert "word@" not in done.stderr


def test_devices_are_listed(command: Callable[..., Any], tmp_path: Path) -> None:
    done = command(main.app, "cliprl-stream", "--list-devices", folder=tmp_path)
    assert done.returncode == 0
    assert all(line.startswith("/dev/video") for line in done.stdout.splitlines())
