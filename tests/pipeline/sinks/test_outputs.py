"""Where outputs may go: never over an input or another's file, never two into one, and back to their own place again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import make_clip
from sink_inputs import SCENE, grid, make_frame, segment, write_all

from cliprl.engines import CliprlError, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline import Stream, StreamInfo, open_source
from cliprl.pipeline.cli import main as cli
from cliprl.pipeline.cli.output_registry import OutputRegistry
from cliprl.pipeline.cli.outputs import default_output
from cliprl.pipeline.core.interfaces import OutputSpec
from cliprl.pipeline.sinks import EventSink, MaskSink, NullSink, SinkGroup, open_sink
from cliprl.pipeline.sinks.network.network_sink import NetworkSink
from cliprl.pipeline.sinks.partial_names import partial_path

COMMAND = str(Path(sys.executable).with_name("cliprl-stream"))
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process and in `tmp_path`: (exit status, what it printed on stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cliprl-stream", "-q", "--steps", "0", *map(str, words)])
        status = run_app(cli.app, "cliprl-stream")
        return status, capfd.readouterr().err

    return call


def clip(path: Path, frames: int = 3) -> Path:
    path.parent.mkdir(exist_ok=True)
    return make_clip(path, frames=frames, size=(96, 64))


def images(folder: Path, names: list[str]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        cv2.imwrite(str(folder / name), np.full((64, 96, 3), 40 * i + 20, np.uint8))
    return [folder / name for name in names]


def refused(result: tuple[int, str], *words: str) -> None:
    status, error = result
    assert status == 2, error
    assert len(error.strip().splitlines()) == 1
    for word in words:
        assert word in error


# A folder of masks belongs to the program only as far as its own list says so.


def test_pictures_named_like_masks_are_not_deleted(tmp_path: Path, stream: Run) -> None:
    paths = images(tmp_path / "snaps", ["20261105_143201.png", "000001_40.png"])
    before = {path: path.read_bytes() for path in paths}
    (tmp_path / "link").symlink_to("snaps")
    for output in ("snaps/", "snaps", "link/", "./snaps/../snaps", "."):
        refused(stream("snaps/*.png", "-o", output, "--overwrite"), "input")
    refused(stream("demo:?seconds=0.1", "-o", "snaps/", "--overwrite"), "000001_40.png", "new or empty folder")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "linked.png").symlink_to(paths[0])
    refused(stream("one/*.png", "-o", "snaps/", "--overwrite"), "input")
    refused(stream("one/*.png", "-o", "one/", "--overwrite"), "input")
    assert {path: path.read_bytes() for path in paths} == before
    assert sorted(os.listdir(tmp_path)) == ["link", "one", "snaps"]


def test_a_foreign_classes_file_is_left_alone(tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "classes.json").write_text('{"cat": 1}')
    with pytest.raises(UsageError, match=r"classes\.json"):
        MaskSink(masks, SCENE)
    assert (masks / "classes.json").read_text() == '{"cat": 1}'


def change(path: Path) -> None:
    path.write_bytes(bytes(reversed(path.read_bytes())))


def add(path: Path) -> None:
    path.with_name("000099_7.png").write_bytes(b"another's")


def replace_by_link(path: Path) -> None:
    path.replace(path.parent.with_name("moved.png"))
    path.symlink_to(path.parent.with_name("moved.png"))


def edit_list(path: Path) -> None:
    listed = path.with_name("classes.json")
    data = json.loads(listed.read_text())
    data["files"]["../moved.png"] = data["files"]["thesis.png"] = {"size": 0, "sha256": ""}
    listed.write_text(json.dumps(data, indent=2))


@pytest.mark.parametrize("alter", [change, add, replace_by_link, edit_list])
@pytest.mark.parametrize("when", ["before", "during"])
def test_masks_that_somebody_changed_are_left_alone(tmp_path: Path, alter: Callable[[Path], None], when: str) -> None:
    masks = tmp_path / "masks"
    write_all(MaskSink(masks, SCENE))
    sink = None
    if when == "during":
        sink = MaskSink(masks, SCENE)
        sink.write(make_frame(0), segment(grid(7)))
    alter(masks / "000001_3100.png")
    before = {path: path.read_bytes() for path in masks.iterdir()}
    if sink is None:
        with pytest.raises(UsageError, match="new or empty folder") as refused_:
            MaskSink(masks, SCENE)
        changed = {edit_list: "classes.json", change: "000001_3100.png"}.get(alter)
        if changed:
            assert f"'{masks / changed}' was changed after an earlier run wrote it" in str(refused_.value)
    else:
        with pytest.raises(CliprlError, match=r"masks\.partial.*choose another name"):
            sink.close()
        assert "000000_-500.png" in os.listdir(tmp_path / ".masks.partial")
    assert {path: path.read_bytes() for path in masks.iterdir()} == before


def test_mask_folder_keeps_files_that_arrive_during_writing(tmp_path: Path) -> None:
    sink = MaskSink(tmp_path / "masks", SCENE)
    sink.write(make_frame(0), segment(grid(0)))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "note.txt").write_text("another's")
    with pytest.raises(CliprlError, match="partial"):
        sink.close()
    assert os.listdir(tmp_path / "masks") == ["note.txt"]


# Names.


def test_an_existing_file_is_a_file_whatever_its_name(tmp_path: Path, stream: Run) -> None:
    names = ["take [1]", "take [2]", "50%", "why?", "a*b", "shot_%04d", "demo:x", "screen:1", "[", "new\nline"]
    for i, name in enumerate(names):
        clip(tmp_path / "day" / f"{name}.mp4", frames=i + 2)
    for i, name in enumerate(names):
        status, error = stream(f"day/{name}.mp4")
        assert status == 0, error
        with open_source(str(tmp_path / "day" / f"{name}_overlay.mp4")) as written:
            assert len(list(written)) == i + 2
    assert os.listdir(tmp_path) == ["day"]


@pytest.mark.parametrize("source", ["demo:x.mp4", "screen:1.mp4", "camera:front.mp4", "a%02d.mp4", "http:[x].mp4"])
def test_a_file_in_the_working_folder_is_a_file(tmp_path: Path, stream: Run, source: str) -> None:
    clip(tmp_path / source)
    status, error = stream(source)
    assert status == 0, error
    assert sorted(os.listdir(tmp_path)) == sorted([source, f"{Path(source).stem}_overlay.mp4"])


def test_long_names(tmp_path: Path, stream: Run) -> None:
    clip(tmp_path / "a.mp4").rename(tmp_path / f"{'x' * 251}.mp4")
    refused(stream(f"{'x' * 251}.mp4"), "too long", "-o")
    clip(tmp_path / "a.mp4")
    outputs = [f"{'y' * 251}.mp4", f"{'ü' * 124}.jsonl", f"{'z' * 245}.coco.json", f"{'m' * 255}/"]
    status, error = stream("a.mp4", *(word for name in outputs for word in ("-o", name)))
    assert status == 0, error
    assert sorted(os.listdir(tmp_path)) == sorted(
        [*(name.rstrip("/") for name in outputs), "a.mp4", f"{'x' * 251}.mp4"]
    )
    for name in (f"{'y' * 252}.mp4", f"{'m' * 256}/", "y/" * 3000 + "a.mp4"):
        refused(stream("a.mp4", "-o", name))


def test_long_names_with_equal_beginnings_have_different_partial_names(tmp_path: Path) -> None:
    one, other = (partial_path(tmp_path / f"{'y' * 250}{end}.mp4") for end in "12")
    assert one != other
    assert len(os.fsencode(one.name)) <= 255
    assert partial_path(tmp_path / "a.mp4").name == ".a.partial.mp4"


def test_names_that_are_no_utf_8(tmp_path: Path, stream: Run, capfd: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    clip(tmp_path / "a.mp4").rename(tmp_path / name)
    outputs = ("o.jsonl", "o.coco.json", "m/", os.fsdecode(b"\xff.jsonl"))
    done = subprocess.run(
        [COMMAND, name, "--json", "--steps", "0", *(word for output in outputs for word in ("-o", output))],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode())["input"] == r"caf\xe9.mp4"
    header, *_ = (tmp_path / "o.jsonl").read_text(encoding="utf-8").splitlines()
    for text in (
        header,
        (tmp_path / "o.coco.json").read_text("utf-8"),
        (tmp_path / "m/classes.json").read_text("utf-8"),
    ):
        assert r"caf\\xe9.mp4" in text
        json.loads(text)
    assert stream(name) == (0, "")
    assert os.path.exists(tmp_path / os.fsdecode(b"caf\xe9_overlay.mp4"))


@pytest.mark.parametrize("name", ["", ".", "/", ".."])
def test_names_that_name_no_file(tmp_path: Path, stream: Run, name: str) -> None:
    clip(tmp_path / "a.mp4")
    refused(stream(name))
    refused(stream(name, "-o", "null:"))
    refused(stream("a.mp4", "-o", name))
    refused(stream("demo:?seconds=0.1", "-o", name))
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("demo:?seconds=0.1", "-q", "-o", "null:", "--json")])
def test_a_standard_output_that_takes_nothing_is_told(words: tuple[str, ...], tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [COMMAND, *words], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "cliprl-stream: can't print (No space left on device): give standard output a place that takes it"
    ]


# Outputs that exist.


def test_only_an_earlier_output_of_the_same_input_is_replaced(tmp_path: Path, stream: Run) -> None:
    source, other = clip(tmp_path / "a.mp4"), clip(tmp_path / "b.mp4", frames=5)
    words = ("-o", "o.mp4", "-o", "o.jsonl", "-o", "m/", "--trace", "t.json")
    assert stream(source, *words)[0] == 0
    assert stream(source, *words)[0] == 0
    for name in ("o.mp4", "o.jsonl", "m/"):
        before = snapshot(tmp_path)
        refused(stream(other, "-o", name), name.rstrip("/"), "--overwrite")
        assert snapshot(tmp_path) == before
    refused(stream(other, "-o", "null:", "--trace", "t.json"), "t.json", "--overwrite")
    assert stream(other, *words, "--overwrite")[0] == 0
    refused(stream(source, "-o", "o.mp4"), "--overwrite")
    assert stream(other, *words)[0] == 0


def test_in_doubt_an_output_is_not_replaced(tmp_path: Path, stream: Run) -> None:
    source = clip(tmp_path / "a.mp4")
    assert stream(source)[0] == 0
    output = tmp_path / "a_overlay.mp4"
    times = output.stat()
    data = bytearray(output.read_bytes())
    data[-1] ^= 1
    output.write_bytes(data)
    os.utime(output, ns=(times.st_atime_ns, times.st_mtime_ns))
    refused(stream(source), "a_overlay.mp4", "--overwrite")
    assert output.read_bytes() == data
    assert stream(source, "--overwrite")[0] == 0
    make_clip(source, frames=4, size=(96, 64))  # another input under the same name
    refused(stream(source), "a_overlay.mp4", "--overwrite")
    (tmp_path / "empty.mp4").touch()
    refused(stream(source, "-o", "empty.mp4"), "empty.mp4", "--overwrite")


def test_a_registry_that_cannot_be_used_knows_nothing(tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4")
    (tmp_path / "o.mp4").write_bytes(b"x")
    (tmp_path / "file").touch()
    registry = OutputRegistry(tmp_path / "file" / "outputs")
    registry.note(tmp_path / "o.mp4", str(source))
    assert not registry.knows(tmp_path / "o.mp4", str(source))
    registry = OutputRegistry(tmp_path / "outputs")
    registry.note(tmp_path / "o.mp4", str(source))
    assert registry.knows(tmp_path / "o.mp4", str(source))
    for path in (tmp_path / "outputs").iterdir():
        path.write_bytes(b"[" * 100_000)
    assert not registry.knows(tmp_path / "o.mp4", str(source))


def test_a_playlist_and_its_segments_are_outputs_too(tmp_path: Path, stream: Run) -> None:
    source = clip(tmp_path / "a.mp4")
    (tmp_path / "live-0.ts").write_bytes(b"another's")
    refused(stream(source, "-o", "live.m3u8"), "live-0.ts", "--overwrite")
    assert (tmp_path / "live-0.ts").read_bytes() == b"another's"
    assert stream(source, "-o", "live.m3u8", "--overwrite")[0] == 0
    assert (tmp_path / "live-0.ts").read_bytes() == b"another's", "no playlist lists it"
    playlist = (tmp_path / "live.m3u8").read_text()
    assert playlist.endswith("\nlive-1.ts\n#EXT-X-ENDLIST\n"), "players wait for more without an end mark"
    assert "#EXT-X-MEDIA-SEQUENCE:1\n" in playlist, "players wait where the numbers go back"


def test_standard_output_takes_events_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, status in (((), 0), (("--json",), 2), (("-o", "stdout:"), 2)):
        command = ["cliprl-stream", str(clip(tmp_path / "a.mp4")), "--steps", "0", "-o", "stdout:", *words]
        monkeypatch.setattr(sys, "argv", command)
        assert run_app(cli.app, "cliprl-stream") == status
        lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        assert [line.get("index") for line in lines] == ([] if status else [None, 0, 1, 2])
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_pipe_gets_each_event_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "e.jsonl")
    reader = os.open(tmp_path / "e.jsonl", os.O_RDONLY | os.O_NONBLOCK)
    with EventSink(tmp_path / "e.jsonl", SCENE) as sink:
        for index in range(3):
            sink.write(make_frame(index), segment(grid(index)))
            assert json.loads(os.read(reader, 1 << 20).splitlines()[-1])["index"] == index
    os.close(reader)


def test_a_new_stream_removes_the_segments_of_its_playlist_only(tmp_path: Path) -> None:
    sink = NetworkSink(str(tmp_path / "live.m3u8"), SCENE)
    with sink:
        sink.write(make_frame(0), None)
    for name in (
        "live-1.ts",
        "live20.ts",
        "live-2-0.ts",
    ):  # the one that a killed run had begun; others' playlists have the rest
        (tmp_path / name).write_bytes(b"x")
    with NetworkSink(str(tmp_path / "live.m3u8"), SCENE) as sink:
        sink.write(make_frame(0), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live-2-0.ts", "live-2.ts", "live.m3u8", "live20.ts"]
    assert (tmp_path / "live20.ts").read_bytes() == (tmp_path / "live-2-0.ts").read_bytes() == b"x"


def test_a_playlist_that_a_fault_breaks_has_no_end(tmp_path: Path) -> None:
    sink = NetworkSink(str(tmp_path / "live.m3u8"), SCENE)
    with suppress(RuntimeError), sink:
        for number in range(40):
            sink.write(make_frame(number), None)
        raise RuntimeError
    playlist = (tmp_path / "live.m3u8").read_text()
    assert "live-0.ts" in playlist
    assert "ENDLIST" not in playlist


def test_one_run_at_a_time_writes_a_playlist(tmp_path: Path) -> None:
    """Two would mix their segments, which have the same names."""
    target, left = str(tmp_path / "live.m3u8"), tmp_path / ".live.partial.m3u8"
    left.touch()  # of a run that was killed
    with NetworkSink(target, SCENE) as sink, NetworkSink(target, SCENE) as other:
        sink.write(make_frame(0), None)
        with pytest.raises(UsageError, match="being written by another run"):
            other.write(make_frame(0), None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live-0.ts", "live.m3u8"]
    with NetworkSink(target, SCENE) as sink:
        sink.write(make_frame(0), None)


# Outputs against each other, and against inputs.


def test_one_output_is_given_once(tmp_path: Path, stream: Run) -> None:
    clip(tmp_path / "a.mp4")
    (tmp_path / "old.mp4").write_bytes(b"old")
    os.link(tmp_path / "old.mp4", tmp_path / "hard.mp4")
    (tmp_path / "soft.mp4").symlink_to("old.mp4")
    (tmp_path / "dangling.mp4").symlink_to("new.mp4")
    for one, other in [
        ("o.mp4", "./o.mp4"),
        ("o.mp4", str(tmp_path / "o.mp4")),
        ("old.mp4", "hard.mp4"),
        ("old.mp4", "soft.mp4"),
        ("new.mp4", "dangling.mp4"),
        ("m/", "m/."),
    ]:
        refused(stream("a.mp4", "-o", one, "-o", other, "--overwrite"), "same output")
    refused(stream("a.mp4", "-o", "o.jsonl", "--trace", "o.jsonl"), "same output")
    (tmp_path / "m").mkdir()
    for words in (("-o", "m/o.mp4"), ("-o", "m/n/"), ("--trace", "m/t.json"), ("--record", "m/rec"), ("--record", "m")):
        refused(stream("a.mp4", "-o", "m/", *words), "m/")
    assert (tmp_path / "old.mp4").read_bytes() == b"old"
    assert "o.mp4" not in os.listdir(tmp_path)


def test_no_output_replaces_an_input(tmp_path: Path, stream: Run) -> None:
    names = [f"p{i}.png" for i in range(3)]
    paths = images(tmp_path / "in", names)
    (tmp_path / "in" / "p9.mp4").write_bytes(paths[0].read_bytes())  # a picture still, whatever its name
    os.link(paths[1], tmp_path / "hard.mp4")
    (tmp_path / "soft.jsonl").symlink_to(paths[2])
    before = snapshot(tmp_path)
    for words in (
        ("-o", "null:", "--trace", "in/p1.png"),
        ("-o", "in/p9.mp4"),
        ("-o", "hard.mp4"),
        ("-o", "soft.jsonl"),
        ("-o", "null:", "--trace", "soft.jsonl"),
    ):
        for source in ("in/p*", "./in/*"):
            refused(stream(source, *words, "--overwrite"), "the input itself")
    assert snapshot(tmp_path) == before
    with pytest.raises(UsageError, match="the input itself"):
        open_sink(tmp_path / "in" / "p9.mp4", OutputSpec(StreamInfo(f"{tmp_path}/in/*", 64, 96, Fraction(1, 25)), ()))


# Partial outputs.


@pytest.mark.parametrize("name", ["o.mp4", "o.coco.json", "o.jsonl", "m/"])
def test_a_second_run_into_one_output_is_refused(tmp_path: Path, name: str) -> None:
    first = open_sink(f"{tmp_path}/{name}", SCENE)
    (tmp_path / "link").symlink_to(tmp_path)
    for other in (f"{tmp_path}/{name}", f"{tmp_path}/link/{name}"):
        with pytest.raises(UsageError, match="another run"):
            open_sink(other, SCENE)
    write_all(first)
    write_all(open_sink(f"{tmp_path}/{name}", SCENE))
    assert sorted(os.listdir(tmp_path)) == sorted(["link", name.rstrip("/")])


@pytest.mark.parametrize("name", ["o.mp4", "o.coco.json", "o.jsonl", "m/"])
def test_partial_names_follow_no_link_and_replace_nothing(tmp_path: Path, name: str) -> None:
    partial = partial_path(tmp_path / name.rstrip("/"), folder=name == "m/")
    treasure = tmp_path / "treasure"
    treasure.mkdir() if name == "m/" else treasure.write_bytes(b"treasure")
    partial.symlink_to(treasure)
    second = partial_path(tmp_path / name.rstrip("/"), 2, folder=name == "m/")
    second.write_bytes(b"what a killed run has left")
    sink = open_sink(f"{tmp_path}/{name}", SCENE)
    write_all(sink)
    assert second.read_bytes() == b"what a killed run has left"
    assert partial.is_symlink()
    assert os.listdir(treasure) == [] if name == "m/" else treasure.read_bytes() == b"treasure"
    assert [note for note in sink.notes if str(second) in note]
    assert len(os.listdir(tmp_path)) == 4


def test_an_output_that_another_program_writes_meanwhile_is_kept(tmp_path: Path) -> None:
    for before in (None, b"old"):
        path = tmp_path / f"{before}.jsonl"
        if before:
            path.write_bytes(before)
        sink = EventSink(path, SCENE)
        sink.write(make_frame(0), None)
        path.write_bytes(b"another's, meanwhile")
        with pytest.raises(CliprlError, match=r"meanwhile.*partial.*choose another name"):
            sink.close()
        assert path.read_bytes() == b"another's, meanwhile"
        assert partial_path(path).exists()


# Sinks of the user's own.


@pytest.mark.parametrize("missing", ["__enter__", "__exit__", "write", "close"])
def test_incomplete_sink_fails_before_the_first_frame(tmp_path: Path, missing: str) -> None:
    parts = {name: getattr(NullSink, name) for name in ("__enter__", "__exit__", "write", "close") if name != missing}
    sink = type("Half", (), parts)()
    with (
        open_source(str(clip(tmp_path / "a.mp4"))) as source,
        pytest.raises(UsageError, match=rf"Half lacks {missing}"),
    ):
        Stream(source, sinks=[sink])


def test_sink_that_fails_at_its_end_lets_others_finish(tmp_path: Path) -> None:
    class Broken(NullSink):
        def __exit__(self, *_: object) -> None:
            raise ValueError("no end")

    group = SinkGroup([Broken(), EventSink(tmp_path / "o.jsonl", SCENE)])
    group.write(make_frame(0), None)
    with pytest.raises(CliprlError, match=r"Broken.*no end"):
        group.close()
    assert len((tmp_path / "o.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("source", "expected"),
    [("-", "stdin_overlay.mp4"), ("no[such]*.mp4", None), ("missing%.mp4", "missing%_overlay.mp4")],
)
def test_default_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: str | None) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_output(source) == (expected or str(tmp_path.with_name(f"{tmp_path.name}_overlay.mp4")))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
