"""The command as a person meets it: defaults, messages, exit statuses, Ctrl-C."""

from __future__ import annotations

import gc
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import typer
from rich.console import Console
from waiting import PATIENCE, until

from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.cli import run as run_module
from cliprl.pipeline.cli.progress import ProgressBar, bottleneck, describe_bottleneck
from cliprl.pipeline.cli.run import default_output
from cliprl.pipeline.core.interfaces import StreamInfo
from cliprl.pipeline.core.statistics import END_TO_END, STAGES, Latency, Summary

COMMAND = str(Path(sys.executable).with_name("cliprl-stream"))
DEMO = "demo:?seconds=0.4&size=320x256"


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process, where none of its own is needed."""
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *arguments])
    return run_app(cli.app, "cliprl-stream")


def test_what_is_loaded_is_not_collected_during_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, on_frame = [], run_module._on_frame

    def counted(bar: Any, trace: Any) -> Callable[[Any, Any], None]:
        note = on_frame(bar, trace)

        def both(frame: Any, segmentation: Any) -> None:
            frozen.append(gc.get_freeze_count())
            note(frame, segmentation)

        return both

    monkeypatch.setattr(run_module, "_on_frame", counted)
    assert call(monkeypatch, DEMO, "-o", str(tmp_path / "out.mp4"), "--steps", "0", "--frames", "2") == 0
    assert min(frozen) > 1000
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("terminal", [True, False])
def test_frames_done_are_shown_on_a_terminal_only(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, emoji=False, _environ={"TERM": "xterm"})
    info = StreamInfo("a:dog:[b]", 64, 64, Fraction(1, 25), Fraction(25), frames=40)
    with ProgressBar(console, info, 30, enabled=True) as bar:
        for _ in range(30):
            bar.advance()
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all((words in shown) == terminal for words in ("a:dog:[b]", "30/30", " FPS"))
    assert bool(shown) == terminal


def frames_of(path: Path) -> int:
    with av.open(path) as container:
        return sum(1 for _ in container.decode(video=0))


def test_the_default_run_writes_an_overlay_and_prints_a_summary(tmp_path: Path) -> None:
    words = [COMMAND, "demo:?seconds=1&size=320x256"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert frames_of(tmp_path / "demo_overlay.mp4") == 25
    for word in ("25 frames", "FPS", "p99 ms", "CLIP encoder", "refinement", "0 dropped", "demo_overlay.mp4"):
        assert word in done.stderr
    assert done.stdout == ""


def test_several_outputs_and_json(command: Callable[..., Any], tmp_path: Path) -> None:
    outputs = ("o.mkv", "masks/", "o.coco.json", "o.jsonl")
    words = (word for name in outputs for word in ("-o", name))
    done = command(cli.app, "cliprl-stream", DEMO, "--json", *words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["frames"] == 10
    assert summary["outputs"] == list(outputs)
    assert {"decode", "prepare", "encode", "refine", "draw", "write", "end to end"} == set(summary["latency_ms"])
    assert frames_of(tmp_path / "o.mkv") == 10
    assert len(list((tmp_path / "masks").glob("*.png"))) == 10
    assert len(json.loads((tmp_path / "o.coco.json").read_text())["images"]) == 10
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 11


def test_summaries_name_no_password(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("--json",)):
        assert call(monkeypatch, DEMO, "-o", "udp://user:secret@127.0.0.1:9", "--frames", "3", *words) == 0
        printed = "".join(capfd.readouterr())
        assert "udp://***@127.0.0.1:9" in printed
        assert "secret" not in printed


def test_quiet_is_quiet_and_verbose_says_what_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, DEMO, "-q", "-o", str(tmp_path / "o.mp4")) == 0
    assert "".join(capfd.readouterr()) == ""
    assert call(monkeypatch, DEMO, "-v", "-o", "null:") == 0
    error = capfd.readouterr().err
    assert "256x320" in error
    assert "openvino" in error


def test_input_size_that_breaks_a_rule_is_misuse(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, DEMO, "-o", "null:", "--input-size", "300x400") == 2
    assert "300x400: height and width must be multiples of 32" in capfd.readouterr().err


def test_help_and_version(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch, "--help") == 0
    text = capfd.readouterr().out
    for word in ("INPUT", "--output", "--budget-ms", "Examples", "not a medical device"):
        assert word in text
    assert "--max-age-ms" not in text
    assert "--overwrite" in text
    assert "only an unchanged earlier output" in " ".join(text.replace("│", " ").split())
    assert call(monkeypatch, "--version") == 0
    assert capfd.readouterr().out.startswith("cliprl 0")


def test_help_fits_two_screens_and_help_all_lists_everything(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = command(cli.app, "cliprl-stream", "--help").stdout.splitlines()
    assert 40 < len(lines) <= 100
    assert max(map(len, lines)) <= 100
    everything = command(cli.app, "cliprl-stream", "--help-all").stdout
    for name in (name for parameter in typer.main.get_command(cli.app).params for name in parameter.opts[:1]):
        assert name in everything or name == "source"


def summary_of(dropped: int = 0, **medians: float) -> Summary:
    names = (*STAGES, END_TO_END)
    latency = {name: Latency(*[medians.get(name, float("nan"))] * 4) for name in names}
    return Summary(10, 1.0, 1.0, dropped, 0, 0.0, False, latency)


@pytest.mark.parametrize(
    ("summary", "paced", "source", "words"),
    [
        (summary_of(decode=30, encode=20, write=1), False, "demo:", "rendering the demo scene"),
        (summary_of(decode=30, encode=20), False, "operation.mp4", "decoding"),
        (summary_of(decode=30, encode=20), False, "-", "reading standard input"),
        (summary_of(decode=3, encode=20, refine=21), False, "operation.mp4", "refinement"),
        (summary_of(decode=3, encode=20), True, "/dev/video0", "the frame rate of the source"),
        (summary_of(4, decode=3, draw=50), True, "/dev/video0", "drawing the overlay"),
        (summary_of(), False, "demo:", ""),
    ],
)
def test_the_bottleneck_of_a_run(summary: Summary, paced: bool, source: str, words: str) -> None:
    assert describe_bottleneck(bottleneck(summary, paced=paced), source) == words


def test_the_summary_names_the_bottleneck(command: Callable[..., Any]) -> None:
    words = (cli.app, "cliprl-stream", "demo:?seconds=0.2&size=640x512", "--steps", "0", "-o", "null:")
    assert ", bound by " in command(*words).stderr
    assert json.loads(command(*words, "--json").stdout)["bottleneck"] in STAGES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["Missing argument", "--help"]),
        (("--nonsense", "demo:"), ["--nonsense"]),
        (("demo:", "--steps", "-1"), ["--steps", "-1"]),
        (("demo:", "--steps", "many"), ["--steps", "many"]),
        (("demo:", "--opacity", "2"), ["--opacity", "2"]),
        (("demo:", "--budget-ms", "0", "-o", "null:"), ["budget", "0"]),
        (("demo:", "--device", "tpu", "-o", "null:"), ["tpu", "cpu"]),
        (("demo:", "--classes", "spleen", "-o", "null:"), ["spleen", "instrument-shaft"]),
        (("demo:", "--bundle", "giant", "-o", "null:"), ["giant", "small"]),
        (("missing.mp4", "-o", "null:"), ["missing.mp4"]),
        ((".", "-o", "null:"), ["folder"]),
        (("demo:?colour=red", "-o", "null:"), ["colour"]),
        (("demo:?seconds=1e400", "-o", "null:"), ["seconds=1e400"]),
        (("demo:?seconds=1e99", "-o", "null:"), ["seconds=1e99", "at most"]),
        (("demo:?rate=1001", "-o", "null:"), ["rate=1001", "at most 1000"]),
        (("demo:?seconds=1&seconds=2", "-o", "null:"), ["occurs twice"]),
        (("demo:", "--frames", "9" * 20, "-o", "null:"), ["--frames", "less than or equal"]),
        ((DEMO, "-o", ".mp4"), ["'.mp4' is an ending without a name", "overlay.mp4"]),
        (("demo:", "--trace", ".", "-o", "null:"), ["the trace '.' is a folder"]),
        ((f"{__file__}/", "-o", "null:"), ["leave out the / behind it"]),
        (("a\x1b[31mb\u202e.mp4", "-o", "null:"), ["a\\x1b[31mb\\xe2\\x80\\xae.mp4"]),
        (("demo:", "-o", "out.gif"), ["out.gif", ".mp4"]),
        (("demo:", "-o", "/nowhere/at/all/out.mp4"), ["/nowhere/at/all"]),
        (("demo:", "--record", ""), ["--record", "empty value"]),
        (("demo:", "--trace=", "-o", "null:"), ["--trace", "empty value"]),
        (("demo:", "--bundle", "", "-o", "null:"), ["--bundle", "empty value"]),
        (("demo:", "-o", ""), ["-o", "empty value"]),
        (("demo:", "--web", "x:y"), ["'x:y'", "HOST:PORT"]),
        (("--web", "127.0.0.1:-5", "demo:"), ["127.0.0.1:-5", "HOST:PORT"]),
        (("demo:", "--web", ":99999"), ["99999", "0 to 65535"]),
        *(
            (("demo:?seconds=0.1&size=64x64", "-o", f"{scheme}://127.0.0.1:{port}/x"), [f":{port}", "1 to 65535"])
            for scheme in ("udp", "rtsp", "rtmp")
            for port in ("99999", "0", "-1", "abc", "")
        ),
        (("demo:?seconds=0.1&size=64x64", "-o", "udp://127.0.0.1"), ["udp://127.0.0.1", "1 to 65535"]),
        (("demo:?seconds=0.1&size=64x64", "-o", "udp://[::1]:65536"), ["[::1]:65536", "1 to 65535"]),
        (("rtsp://127.0.0.1:65536/x", "-o", "null:"), ["65536", "1 to 65535"]),
    ],
)
def test_misuse_is_one_line_and_status_2(
    arguments: tuple[str, ...], words: list[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, *arguments) == 2
    error = capfd.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("cliprl-stream: ")
    assert "Traceback" not in error
    for word in words:
        assert word in error


@pytest.mark.parametrize("name", ["-x.mp4", "-overlay.mp4"])
def test_file_name_beginning_with_a_dash_has_a_hint(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, name) == 2
    assert "./-" not in capfd.readouterr().err
    Path(name).touch()
    assert call(monkeypatch, name) == 2
    assert f"'./{name}'" in capfd.readouterr().err


def test_the_input_is_never_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "clip.mp4"
    assert call(monkeypatch, DEMO, "-q", "-o", str(clip)) == 0
    before = clip.read_bytes()
    assert call(monkeypatch, str(clip), "-o", str(clip)) == 2
    assert "input itself" in capfd.readouterr().err
    assert clip.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_a_file_that_plays(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [COMMAND, "demo:?seconds=600&size=320x256", "-o", "out.mp4", "-o", "events.jsonl"]
    with subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        events = tmp_path / "events.jsonl"
        until(lambda: process.poll() is not None or _lines(tmp_path, events) > 20)
        process.send_signal(number)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert "interrupted" in error
    assert "Traceback" not in error
    assert frames_of(tmp_path / "out.mp4") == len(events.read_text().splitlines()) - 1 > 19


def test_a_closed_terminal_leaves_a_file_that_plays(tmp_path: Path) -> None:
    # The leader of a session with a terminal, which the kernel hangs up when the terminal's other end is closed.
    arguments = ["setsid", "--ctty", COMMAND, "demo:?seconds=600&size=320x256", "-o", "out.mp4", "-o", "events.jsonl"]
    ours, terminal = pty.openpty()
    events = tmp_path / "events.jsonl"
    with subprocess.Popen(arguments, cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        while _lines(tmp_path, events) <= 20:
            assert os.read(ours, 65536)  # it must not wait for its terminal
        os.close(ours)
        assert process.wait(timeout=PATIENCE) == 128 + signal.SIGHUP
    assert frames_of(tmp_path / "out.mp4") == len(events.read_text().splitlines()) - 1 > 19
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "out.mp4"]


def test_a_machine_without_cameras_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cliprl.pipeline.sources.v4l2_devices.list_devices", list)
    assert call(monkeypatch, "--list-devices") == 0
    output, error = capfd.readouterr()
    assert output == ""
    assert "no camera was found" in error


def test_nohup_keeps_a_run_alive(tmp_path: Path) -> None:
    arguments = ["nohup", COMMAND, "demo:?seconds=2&size=320x256", "-o", "out.mp4", "-o", "events.jsonl"]
    with subprocess.Popen(
        arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until(lambda: process.poll() is not None or _lines(tmp_path, tmp_path / "events.jsonl") > 1)
        process.send_signal(signal.SIGHUP)
        _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, error
    assert frames_of(tmp_path / "out.mp4") == 50


def _lines(folder: Path, events: Path) -> int:
    """Lines written so far, wherever the sink keeps them until it is closed."""
    return max((p.read_bytes().count(b"\n") for p in folder.glob(f"*{events.stem}*")), default=0)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/b.mp4", "a/b_overlay.mp4"),
        ("a/b.MOV", "a/b_overlay.mov"),
        ("a/.mp4", "a/.mp4_overlay.mp4"),
        ("a/b.m4v", "a/b_overlay.m4v"),
        ("screen:?size=640x480", "screen_overlay.mp4"),
        ("camera:Endo Cam", "camera_overlay.mp4"),
        ("b.avi", "b_overlay.mp4"),
        ("a/frames/*.png", "a/frames_overlay.mp4"),
        ("frames/%04d.png", "frames_overlay.mp4"),
        ("demo:?seconds=3", "demo_overlay.mp4"),
        ("rtsp://user:secret@host:554/live/room1?x=1", "room1_overlay.mp4"),
        ("/dev/video0", "video0_overlay.mp4"),
        ("rtsp://h/user=a_password=zz_channel=1.sdp", "user=a_password=x_overlay.mp4"),
    ],
)
def test_the_default_output_lies_beside_the_input(source: str, expected: str) -> None:
    assert default_output(source) == expected


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_standard_error_that_takes_nothing_costs_no_output(tmp_path: Path, redirection: str) -> None:
    target = tmp_path / "out.mp4"
    script = "from cliprl.pipeline.cli.main import main; main()"
    command = f'"$0" -c "{script}" "{DEMO}" -o "{target}" --steps 0 {redirection}'
    assert subprocess.run(["sh", "-c", command, sys.executable], check=False, timeout=300).returncode == 0
    assert frames_of(target) == 10
