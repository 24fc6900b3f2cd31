"""Whatever a run is given and however it ends, every file that was there before is there afterwards, byte for byte.

One run writes every kind of output at once, in a folder where other files lie beside the outputs and under the names that
the program would like to use. Only the outputs that a run names may change, and these only at the end of a run that made them.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from limits import file_size_limit
from media import make_clip, scribble
from sink_inputs import SCENE, grid, make_frame, segment, write_all
from waiting import PATIENCE, until

from cliprl.engines import CliprlError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.cli.main import app
from cliprl.pipeline.core.interfaces import Sink
from cliprl.pipeline.sinks import MaskSink, open_sink, partial_names

COMMAND = str(Path(sys.executable).with_name("cliprl-stream"))
FILES = ("o.mp4", "o.mkv", "o.mov", "o.coco.json", "o.jsonl")
TRACE, MASKS, PLAYLIST = "t.json", "m", "live.m3u8"
# What a run that did not end well may leave, and the segments of the playlist.
LEFT = re.compile(
    r"disk/(\.(o|t|m|live)\.partial(-\d+)?(\.\w+|/.*)?|\.o\.coco\.partial(-\d+)?\.json|live(-\d+)?\.(ts|m3u8))"
)
State = dict[str, tuple[Any, ...]]


def tree(folder: Path, images: int = 40) -> Path:
    """Inputs, a folder `disk` for outputs with earlier ones and other files in it, and a link `out` that leads to it."""
    (folder / "in").mkdir()
    for i in range(images):
        cv2.imwrite(str(folder / "in" / f"{i:06d}_{40 * i}.png"), np.full((64, 96, 3), i % 200, np.uint8))
    make_clip(folder / "whole.mp4", frames=40, size=(96, 64), options={"g": "10"})
    scribble(folder / "whole.mp4", 0.5, folder / "hurt.mp4", length=300)
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    disk = folder / "disk"
    disk.mkdir()
    (folder / "out").symlink_to("disk")
    (folder / "treasure").write_bytes(b"treasure")
    for name in (*FILES, TRACE):
        (disk / name).write_bytes(f"an earlier {name}".encode())
    write_all(MaskSink(disk / MASKS, SCENE))
    for name in (
        ".o.partial.mp4",
        ".o.partial-2.mp4",
        ".t.partial.json",
        "o.srt",
        "m.txt",
        "livelihood.ts",
        "classes.json",
    ):
        (disk / name).write_bytes(f"another's {name}".encode())
    for name in (".o.partial.mkv", ".o.coco.partial.json", ".m.partial", ".o.partial.mov"):
        (disk / name).symlink_to("../treasure")
    (disk / ".o.partial.jsonl").mkdir()
    (disk / ".m.partial-2").mkdir()
    (disk / ".m.partial-2" / "000000_0.png").write_bytes(b"another's mask")
    os.mkfifo(disk / ".m.partial-3")
    return folder


def state(folder: Path) -> State:
    """Everything in a folder: kind and permissions, time of the last change, and content; of a folder only that it is there."""
    found: State = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        if path.is_symlink():
            what: tuple[Any, ...] = (os.readlink(path), about.st_ino)
        elif path.is_file():
            what = (path.read_bytes(), about.st_ino, about.st_mtime_ns)
        else:
            what = (about.st_ino,)
        found[str(path.relative_to(folder))] = (about.st_mode, *what)
    return found


def words(source: str) -> list[str]:
    outputs = [f"out/{name}" for name in (*FILES, f"{MASKS}/", PLAYLIST)]
    return [source, "--steps", "0", "--trace", f"out/{TRACE}", *(word for name in outputs for word in ("-o", name))]


def is_output(path: str) -> bool:
    named = [f"disk/{name}" for name in (*FILES, TRACE, MASKS)]
    return path in named or path.startswith(f"disk/{MASKS}/")


def assert_nothing_lost(before: State, after: State, *, replaced: bool) -> None:
    """All is as it was, but for the named outputs where they may be `replaced`; what is new is theirs."""
    kept = {path: what for path, what in before.items() if not (replaced and is_output(path))}
    assert {path: after.get(path) for path in kept} == kept
    new = {path for path in after if path not in before and not is_output(path)}
    assert {path for path in new if not LEFT.fullmatch(path)} == set()


def start(folder: Path, arguments: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([COMMAND, *arguments], cwd=folder, stderr=subprocess.PIPE, text=True, **options)


def finish(process: subprocess.Popen[str]) -> str:
    _, error = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in error
    assert "unexpected" not in error
    return error


def run_here(folder: Path, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of the command in this process, where no signal and no limit needs one of its own."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", *arguments])
    return run_app(app, "cliprl-stream")


def little_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))


@pytest.mark.parametrize(
    ("arguments", "expected", "whole"),
    [
        (words("in/0000[0-3]*.png"), 0, True),
        (words("hurt.mp4"), 0, True),
        (words("text.mp4"), 1, False),
        (words("missing.mp4"), 2, False),
        ([*words("whole.mp4"), "-o", "/proc/o.mp4"], 2, False),
        ([*words("whole.mp4"), "-o", "out/o.gif"], 2, False),
        ([*words("whole.mp4"), "-o", "whole.mp4"], 2, False),
        ([*words("whole.mp4"), "-o", "in/"], 2, False),
        ([*words("in/*.png"), "-o", "in/"], 2, False),
        ([*words("whole.mp4"), "--classes", "spleen"], 2, False),
    ],
    ids=[
        "whole",
        "damaged",
        "no video",
        "missing",
        "unwritable",
        "no output",
        "input",
        "pictures",
        "own folder",
        "misuse",
    ],
)
def test_a_run_that_ends(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    expected: int,
    whole: bool,
) -> None:
    before = state(tree(tmp_path))
    status = run_here(tmp_path, [*arguments, "--overwrite"], monkeypatch)
    error = capfd.readouterr().err
    assert status == expected, error
    assert "Traceback" not in error
    assert "unexpected" not in error
    after = state(tmp_path)
    assert_nothing_lost(before, after, replaced=whole)
    assert not [path for path in after if path not in before and "partial" in path]
    if whole:
        assert json.loads((tmp_path / "disk" / TRACE).read_text())["traceEvents"]
        assert len(list((tmp_path / "disk" / MASKS).glob("*.png"))) >= 35
        assert all((tmp_path / "disk" / name).read_bytes() != before[f"disk/{name}"][1] for name in FILES)


def test_a_run_without_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    before = state(tree(tmp_path))
    assert run_here(tmp_path, words("whole.mp4"), monkeypatch) == 2
    assert "--overwrite" in capfd.readouterr().err
    assert state(tmp_path) == before


def test_a_full_disk(tmp_path: Path) -> None:
    before = state(tree(tmp_path, 400))
    process = start(tmp_path, [*words("in/*.png"), "--overwrite", "--crf", "0"], preexec_fn=little_room)
    error = finish(process)
    assert process.returncode == 1, error
    assert os.strerror(errno.EFBIG) in error
    assert_nothing_lost(before, state(tmp_path), replaced=False)


@pytest.mark.parametrize(
    ("number", "frames"),
    [
        (signal.SIGINT, 0),
        (signal.SIGINT, 20),
        (signal.SIGTERM, 20),
        (signal.SIGHUP, 0),
        (signal.SIGKILL, 0),
        (signal.SIGKILL, 20),
    ],
)
def test_a_run_that_is_ended(tmp_path: Path, number: signal.Signals, frames: int) -> None:
    """At its start, where outputs are open and no frame is written yet, and in its midst."""
    before = state(tree(tmp_path, 400))
    process = start(tmp_path, [*words("in/*.png"), "--overwrite"])
    events = tmp_path / "disk" / ".o.partial-2.jsonl"
    until(lambda: process.poll() is not None or _has(events, frames))
    process.send_signal(number)
    finish(process)
    assert process.returncode in ({-number} if number == signal.SIGKILL else {0, 128 + number})
    after = state(tmp_path)
    written = number != signal.SIGKILL
    assert_nothing_lost(before, after, replaced=written)
    if written:
        assert not [path for path in after if path not in before and "partial" in path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", [*FILES, f"{MASKS}/", TRACE])
def test_a_stop_right_after_an_output_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: signal.Signals
) -> None:
    """The signal comes as soon as the partial file or folder exists, before anything knows that it does."""
    before = state(small_tree(tmp_path))
    create, created = partial_names._create, []

    def create_and_stop(path: Path, folder: bool) -> int:
        handle = create(path, folder)
        created.append(path)
        os.kill(os.getpid(), number)
        return handle

    monkeypatch.setattr(partial_names, "_create", create_and_stop)
    output = ("--trace", TRACE, "-o", "null:") if name == TRACE else ("-o", name)
    try:
        status = run_here(tmp_path, ["whole.mp4", "--steps", "0", *output], monkeypatch)
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == 128 + number
    assert len(created) == 1
    assert state(tmp_path) == before


def test_a_signal_ends_the_wait_for_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inside libav, which waits for data that don't come: a pipe without a writer."""
    os.mkfifo(tmp_path / "pipe")
    waiting = threading.Event()
    open_it = av.open

    def open_and_stop(*arguments: Any, **options: Any) -> Any:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        waiting.set()
        return open_it(*arguments, **options)

    def release() -> None:
        waiting.wait(60)
        if not ended.wait(PATIENCE):
            released.set()
            os.close(os.open(tmp_path / "pipe", os.O_WRONLY))

    ended, released = threading.Event(), threading.Event()
    releasing = threading.Thread(target=release)
    releasing.start()
    monkeypatch.setattr(av, "open", open_and_stop)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cliprl-stream", "pipe", "--steps", "0"])
    with pytest.raises(SystemExit) as stopped:
        run_app(app, "cliprl-stream")
    ended.set()
    releasing.join()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert not released.is_set(), "the wait ended by the pipe's writer alone"
    assert os.listdir(tmp_path) == ["pipe"]
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY))  # the thread that was left behind ends


def small_tree(folder: Path) -> Path:
    make_clip(folder / "whole.mp4", frames=3, size=(96, 64))
    return folder


def _has(events: Path, frames: int) -> bool:
    return events.exists() and events.read_bytes().count(b"\n") >= frames


def test_a_second_run_into_the_same_outputs(tmp_path: Path) -> None:
    before = state(tree(tmp_path, 400))
    first = start(tmp_path, [*words("in/*.png"), "--overwrite"])
    until(lambda: first.poll() is not None or _has(tmp_path / "disk" / ".o.partial-2.jsonl", 1))
    first.send_signal(signal.SIGSTOP)
    try:
        second = start(tmp_path, [*words("whole.mp4"), "--overwrite"])
        assert "another run" in finish(second)
        assert second.returncode == 2
        assert_nothing_lost(before, state(tmp_path), replaced=False)
    finally:
        first.send_signal(signal.SIGCONT)
        first.terminate()
    finish(first)
    assert_nothing_lost(before, state(tmp_path), replaced=True)


@pytest.mark.parametrize("name", [*FILES, f"{MASKS}/"])
@pytest.mark.parametrize("trouble", ["full", "error", "interrupt"])
def test_each_sink_alone(tmp_path: Path, name: str, trouble: str) -> None:
    """A disk without room, a run that breaks, and Ctrl-C, after so many frames that each sink has written some."""
    before = state(tree(tmp_path))
    sink = open_sink(f"{tmp_path}/out/{name}", SCENE)
    with pytest.raises((CliprlError, ValueError, KeyboardInterrupt)):
        _write_until(sink, trouble)
    assert_nothing_lost(before, state(tmp_path), replaced=trouble == "interrupt")


@pytest.mark.parametrize("name", FILES)
def test_a_folder_removed_during_the_run_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "gone").mkdir()
    sink = open_sink(f"{tmp_path}/gone/{name}", SCENE)
    sink.write(make_frame(0), segment(grid(0)))
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(CliprlError, match=r"was removed while it was written.*choose another place"):
        sink.close()


def _write_until(sink: Sink, trouble: str) -> None:
    with sink:
        for i in range(30):
            sink.write(make_frame(i), segment(grid(i)))
        if trouble == "error":
            raise ValueError
        if trouble == "interrupt":
            raise KeyboardInterrupt
        noise = np.random.default_rng(0)
        with file_size_limit(3_000):
            for i in range(30, 100):
                frame = make_frame(i, (480, 640))
                frame.luma[:] = noise.integers(0, 255, frame.luma.shape, np.uint8)
                sink.write(frame, segment(noise.integers(0, 3, (120, 160), np.uint8), (480, 640)))
            sink.close()


def test_the_tree_is_as_told(tmp_path: Path) -> None:
    """The other files lie where the program's own would: without that the tests above show nothing."""
    tree(tmp_path)
    kinds = {path.name: stat.S_IFMT(path.lstat().st_mode) for path in (tmp_path / "disk").iterdir()}
    for name in (".o.partial.mp4", ".o.partial.mkv", ".o.partial.mov", ".o.coco.partial.json", ".o.partial.jsonl"):
        assert name in kinds
    assert {stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO} == set(kinds.values())
