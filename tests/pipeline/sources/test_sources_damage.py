"""Cut and scribbled files: what can be decoded comes out, the rest is counted, and nothing crashes.

Every case runs in a child process, because libav may kill the process on such files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
from media import cut, make_clip, scribble

from cliprl.pipeline.sources import open_source

CLIPS: dict[str, dict[str, Any]] = {
    "h264.mp4": {"container_options": {"movflags": "faststart"}},
    "h264.mkv": {},
    "h264.ts": {},
    "mpeg4.mp4": {"codec": "mpeg4", "container_options": {"movflags": "faststart"}},
    "mpeg4.avi": {"codec": "mpeg4"},
}
FRAMES = 60
CHILD = """
import json, sys
from cliprl.engines import CliprlError
from cliprl.pipeline.sources import open_source
for path in sys.argv[1:]:
    try:
        with open_source(path) as source:
            frames = [(frame.pts, frame.damaged) for frame in source]
        print(json.dumps({"frames": frames, "damaged": source.damaged, "notes": source.info.notes}), flush=True)
    except CliprlError as error:
        print(json.dumps({"error": str(error)}), flush=True)
"""


def read_in_child(paths: list[Path]) -> list[dict[str, Any]]:
    """What a fresh process makes of each file."""
    command = [sys.executable, "-c", CHILD, *map(str, paths)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120)
    results = [json.loads(line) for line in child.stdout.splitlines()]
    assert child.returncode == 0, f"died on {paths[len(results)]}: {child.stderr[-500:]}"
    assert child.stderr == ""
    return results


def frames_without_threads(path: Path) -> int:
    """How many pictures PyAV itself gets out of a damaged file, decoding with one thread."""
    count = 0
    try:
        container = av.open(str(path))
    except av.error.FFmpegError:
        return 0
    with container:
        stream = container.streams.video[0]
        if stream.codec_context is None:  # decoding would kill the process
            return 0
        stream.codec_context.flags |= 1 << 3  # output corrupt pictures too
        for packet in container.demux(stream):
            try:
                count += len(stream.decode(packet))
            except av.error.FFmpegError:
                continue
    return count


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, options in CLIPS.items():
        make_clip(folder / name, frames=FRAMES, size=(320, 240), **{"options": {"g": "20"}} | options)
    return folder


@pytest.mark.parametrize("name", CLIPS)
def test_a_cut_file_gives_all_that_is_decodable(clips: Path, tmp_path: Path, name: str) -> None:
    paths = [cut(clips / name, part / 16, tmp_path / f"{part}-{name}") for part in range(1, 16, 2)]
    uncut, *results = read_in_child([clips / name, *paths])
    whole = [pts for pts, _ in uncut["frames"]]
    counts = []
    for path, result in zip(paths, results, strict=True):
        if "error" in result:
            assert str(path) in result["error"]
            assert "\n" not in result["error"]
            assert frames_without_threads(path) <= 1
            counts.append(0)
            continue
        times = [pts for pts, _ in result["frames"]]
        assert len(times) >= frames_without_threads(path)
        # in order and of the file; the last ones of a cut stream may lack their place in it
        sure = max(len(times) - 3, 0)
        assert times[:sure] == whole[:sure]
        counts.append(len(times))
    assert counts == sorted(counts)
    assert counts[-1] > FRAMES * 0.8


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.mp4", "mpeg4.avi"])
def test_a_cut_file_says_what_is_missing(clips: Path, tmp_path: Path, name: str) -> None:
    (result,) = read_in_child([cut(clips / name, 0.5, tmp_path / name)])
    count = len(result["frames"])
    marked = sum(damaged for _, damaged in result["frames"])
    assert 0 < count < FRAMES
    assert FRAMES - count <= result["damaged"] <= FRAMES - count + marked
    assert f"{count} of the {FRAMES} frames" in " ".join(result["notes"])


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("length", [300, 4000])
def test_decoding_goes_on_after_garbage(clips: Path, tmp_path: Path, name: str, length: int) -> None:
    places = [i / 10 for i in range(10)]
    paths = [scribble(clips / name, at, tmp_path / f"{at}-{name}", length) for at in places]
    results = read_in_child(paths)
    opened = [(at, result) for at, result in zip(places, results, strict=True) if "error" not in result]
    assert {at for at, _ in opened} >= {i / 10 for i in range(3, 10)}  # the head of a file may be beyond help
    silent = []
    for at, result in opened:
        if at < 0.3 or length < 1000:  # little garbage may decode without an error, to wrong pixels
            continue
        assert len(result["frames"]) >= FRAMES // 2  # Matroska loses a whole cluster
        told = result["damaged"] or any("missing" in note or "end after" in note for note in result["notes"])
        silent += [] if told else [(at, result["notes"])]
    assert len(silent) <= 1, silent  # the bytes of a rare picture are garbage and still legal: no decoder can tell
    assert any(result["damaged"] for _, result in opened)
    assert any(damaged for _, result in opened for _, damaged in result["frames"])


def test_a_whole_file_is_not_called_damaged(clips: Path) -> None:
    for result in read_in_child([clips / name for name in CLIPS]):
        assert (result["damaged"], result["notes"]) == (0, [])
        assert len(result["frames"]) == FRAMES
        assert not any(damaged for _, damaged in result["frames"])


def test_segments_with_counters_of_their_own_are_not_damaged(tmp_path: Path) -> None:
    names = [f"{number}.ts" for number in range(2)]
    for number, name in enumerate(names):
        make_clip(tmp_path / name, frames=10, pts=range(10 * number, 10 * number + 10))
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:1", *(line for name in names for line in ("#EXTINF:0.4,", name))]
    (tmp_path / "list.m3u8").write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    with av.open(str(tmp_path / "list.m3u8")) as container:
        assert any(packet.is_corrupt for packet in container.demux(video=0))
    with open_source(str(tmp_path / "list.m3u8")) as source:
        assert [frame.damaged for frame in source] == [False] * 20
    assert source.damaged == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_is_written_meanwhile_is_noted(tmp_path: Path, replaced: bool) -> None:
    path, other = make_clip(tmp_path / "a.ts", frames=20), make_clip(tmp_path / "b.ts", frames=5)
    with open_source(path) as source:
        assert source.read() is not None
        if replaced:  # what was opened is read to its end
            other.replace(path)
        else:
            path.write_bytes(path.read_bytes() + other.read_bytes())
        list(source)
        notes = " ".join(source.info.notes)
    assert ("written while it was read: run again on the finished file" in notes) != replaced
