"""`cliprl-stream --web` as a person meets it."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.cli import run as command
from cliprl.pipeline.cli import viewers

pytest.importorskip("aiortc", reason="the extra `live` is not installed")

from cliprl.pipeline.web.address import external_addresses

COMMAND = str(Path(sys.executable).with_name("cliprl-stream"))
# Seconds after which a test gives up waiting for what has to come.
LIMIT = 120.0


@contextmanager
def running(
    folder: Path, *arguments: str, start: Callable[[], object] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and where it says that its page is. `start` is called in the new process first."""
    pipe = subprocess.PIPE
    words = [COMMAND, *arguments]
    with subprocess.Popen(words, cwd=folder, stdout=pipe, stderr=pipe, text=True, preexec_fn=start) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            match = re.fullmatch(r"cliprl-stream: watch at (http://\S+)\n", line)
            assert match, line + process.stderr.read()
            yield process, match[1]
        finally:
            process.kill()


def fetch(url: str, body: object = None) -> tuple[int, bytes]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, data, {"Content-Type": "application/json"}), timeout=LIMIT
        ) as got:
            return got.status, got.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def until(url: str, pattern: str) -> str:
    deadline = time.monotonic() + LIMIT
    while not (match := re.search(pattern, fetch(url)[1].decode(), re.MULTILINE)):
        assert time.monotonic() < deadline, fetch(url)
        time.sleep(0.1)
    return match[1] if match.groups() else match[0]


def displayed(url: str) -> float:
    """The number of frames that were displayed."""
    return float(until(url + "metrics", r"^cliprl_frames_displayed_total (\S+)"))


def in_background() -> None:
    """As a shell without job control starts what ends with &."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("start", [None, in_background])
def test_file_plays_at_its_rate_and_last_frame_stays(tmp_path: Path, start: Callable[[], object] | None) -> None:
    words = ["demo:?size=160x128&seconds=2", "--web", ":0", "-o", "seen.mp4", "--json"]
    with running(tmp_path, *words, start=start) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        until(url + "metrics", r"^cliprl_frames_displayed_total [1-9]")
        assert fetch(url + "snapshot.png")[1].startswith(b"\x89PNG")
        until(url + "healthz", '"ended"')
        assert fetch(url + "healthz")[0] == 503
        last = fetch(url + "snapshot.png")[1]
        assert last.startswith(b"\x89PNG")
        assert fetch(url + "api/controls", {"opacity": 0})[0] == 200
        deadline = time.monotonic() + LIMIT
        while fetch(url + "snapshot.png")[1] == last:  # it still follows the controls
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert process.stderr is not None
        lines = list(itertools.takewhile(lambda line: "the page stays until Ctrl-C" not in line, process.stderr))
        assert process.poll() is None, lines
        assert not any("other machines" in line for line in lines), "on loopback there is one address"
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert "Traceback" not in error
    summary = json.loads(output)
    assert summary["frames"] == 50
    assert summary["seconds"] > 1.5
    with av.open(tmp_path / "seen.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 50
    assert [path.name for path in tmp_path.iterdir()] == ["seen.mp4"]


def test_demo_shows_masks_records_and_follows_on_request(tmp_path: Path) -> None:
    words = ["demo:?size=160x128&seconds=0&rate=10", "--web=127.0.0.1:0", "-q", "--ids", "-o", "seen.jsonl"]
    with running(tmp_path, *words) as (process, url):
        until(url + "metrics", r'^cliprl_mask_state\{state="(?:fresh|aged)"\} 1')
        assert fetch(url + "api/controls", {"recording": True})[0] == 200
        until(url + "metrics", "^cliprl_recording 1")
        assert json.loads(fetch(url + "api/stream")[1])["follows"]
        deadline = time.monotonic() + LIMIT
        while fetch(url + "api/follow", {"next": True})[0] != 200:  # until an instrument has a number
            assert time.monotonic() < deadline
            time.sleep(0.1)
        while (followed := fetch(url + "api/follow", {"box": [0, 0, 1, 1]}))[0] != 200:  # none is in view for a moment
            assert time.monotonic() < deadline
            time.sleep(0.1)
        begun = displayed(url)
        while displayed(url) < begun + 10:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert fetch(url + "api/controls", {"recording": False})[0] == 200
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGHUP
    recorded = sorted((tmp_path / "recordings").iterdir())
    assert len(recorded) == 2
    for path in recorded:
        with av.open(path) as container:
            assert sum(1 for _ in container.decode(video=0)) > 3
    events = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()[1:]]
    assert "followed" not in events[0]
    states = [event["followed"] for event in events if "followed" in event]
    assert {"state": "following", "id": json.loads(followed[1])["followed"]["id"]} in states


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["demo:", "--web"], ""),
        (["--web", "demo:"], ""),
        (["--web", "-o", "null:", "demo:"], ""),
        (["demo:", "--web", "9000"], "9000"),
        (["--web", "0.0.0.0:9000", "demo:"], "0.0.0.0:9000"),
        (["--web", "[::1]:9000", "demo:"], "[::1]:9000"),
        (["--web=here:9000", "demo:"], "here:9000"),
        (["--web", "clip.mp4"], ""),
        (["demo:"], None),
    ],
)
def test_the_address_may_be_left_out(words: list[str], expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(command, "run", lambda options, **_: seen.append(options.web) or 0)
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *words])
    assert run_app(cli.app, "cliprl-stream") == 0
    assert seen == [expected]


@pytest.mark.parametrize(
    ("words", "told"),
    [(["--web", "nowhere.invalid:80"], "nowhere.invalid"), (["--web=a:b"], "'a:b'"), (["--web", ":99999"], "65535")],
)
def test_an_address_that_is_none_is_misuse(
    words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", "demo:", *words])
    assert run_app(cli.app, "cliprl-stream") == 2
    error = capfd.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_without_its_packages_the_viewer_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(viewers, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", "demo:", "--web"])
    assert run_app(cli.app, "cliprl-stream") == 2
    assert "pip install 'cliprl[live]'" in capfd.readouterr().err


def short_clip(path: Path, frames: int = 50) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(np.full((128, 160, 3), 4 * number, np.uint8), "rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def watch_once(url: str) -> None:
    """Be the first viewer, for a moment."""
    with urllib.request.urlopen(url + "stream.mjpg", timeout=LIMIT) as stream:
        assert stream.read(1000)


def test_file_waits_for_viewer_and_can_replay_and_seek(tmp_path: Path) -> None:
    short_clip(tmp_path / "clip.mp4")
    with running(tmp_path, "clip.mp4", "--web", ":0", "--json") as (process, url):
        assert process.stderr is not None
        assert "begins with the first viewer" in process.stderr.readline()
        assert json.loads(fetch(url + "healthz")[1])["state"] == "connecting"
        assert fetch(url)[0] == fetch(url + "api/stream")[0] == 200  # none of these watches
        time.sleep(1)
        assert fetch(url + "snapshot.png")[0] == 503
        watch_once(url)
        until(url + "healthz", '"ended"')
        assert "the page stays until Ctrl-C" in process.stderr.readline()
        first = float(until(url + "metrics", r"^cliprl_frames_displayed_total (\d+)"))
        assert first == 50
        assert fetch(url + "api/position", {"seconds": 1.0})[0] == 200
        until(url + "metrics", rf"^cliprl_frames_displayed_total (?!{first:.1f}$)[\d.]+")
        until(url + "healthz", '"ended"')
        assert float(until(url + "metrics", r"^cliprl_frames_displayed_total (\d+)")) == 75
        for body in ({"seconds": -1}, {"seconds": 99}, {"seconds": True}, {"seconds": "1"}, {}, {"seconds": 0, "x": 1}):
            assert fetch(url + "api/position", body)[0] == 400
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    assert [line for line in error.splitlines() if "it came too late" not in line] == []  # as on a busy machine
    assert json.loads(output)["interrupted"] is False
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_file_that_is_also_written_plays_once_in_full(tmp_path: Path) -> None:
    short_clip(tmp_path / "clip.mp4", 25)
    with running(tmp_path, "clip.mp4", "--web", ":0", "-o", "seen.mp4", "-q") as (process, url):
        watch_once(url)
        assert fetch(url + "api/position", {"seconds": 0})[0] == 400
        until(url + "healthz", '"ended"')
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0
    with av.open(tmp_path / "seen.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 25


def test_a_file_that_waits_ends_by_ctrl_c(tmp_path: Path) -> None:
    short_clip(tmp_path / "clip.mp4", 5)
    with running(tmp_path, "clip.mp4", "--web", ":0", "-o", "seen.mp4") as (process, url):
        until(url + "healthz", "connecting")
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=LIMIT)
    assert process.returncode == 128 + signal.SIGINT
    assert "Traceback" not in error
    assert "interrupted: 0 frames" in error
    assert "wrote" not in error
    assert not (tmp_path / "seen.mp4").exists()


def test_beyond_loopback_every_address_is_told_and_needs_the_token(tmp_path: Path) -> None:
    with running(tmp_path, "demo:?size=160x128&rate=10", "--web", "0.0.0.0:0", "-q") as (process, url):
        own, _, token = url.partition("/#token=")
        assert len(token) >= 32
        assert fetch(own + "/metrics")[0] == 401
        places = external_addresses(ipv6=False)
        assert not [place for place in places if place.startswith("127.")]
        assert process.stderr is not None
        for place in places:
            line = process.stderr.readline()
            match = re.fullmatch(r"cliprl-stream: from other machines: (http://(\S+):\d+/#token=(\S+))\n", line)
            assert match, line
            assert match[2] == place
            assert url.endswith(match[3])
            assert fetch(match[1].partition("#")[0])[0] == 401  # reached, and asked for the token
