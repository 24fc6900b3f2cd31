"""From a file to an overlay, whole: what went in comes out, in size, time, colour, sound and order, whatever the file is."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import bars, color_of, cut, decode_all, decoded_planes, make_audio, make_clip, scribble
from sound_media import make_media

from cliprl.engines import CompiledBundle
from cliprl.engines.cache.cache_store import StoredEntry
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.selection.engine_variant import EngineVariant
from cliprl.pipeline import Frame, Overlay, Segmentation, Segmenter, Stream, Style, open_source
from cliprl.pipeline.cli import main as cli

CLIPS = ["laparoscopy_720p25.mp4", "davinci_1080p10.mp4", "ophthalmic_1080p30.mp4", "sinus_1080p30.mp4"]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("small", steps=0)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command in this process: (exit status, what it printed on stderr)."""

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cliprl-stream", *map(str, arguments)])
        status = run_app(cli.app, "cliprl-stream")
        return status, capfd.readouterr().err

    return call


def facts(path: Path) -> dict[str, Any]:
    """What a player is told: sizes, rotation, aspect, colour tags, and the time of every frame in seconds."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = list(container.decode(video))
        first = frames[0]
        return {
            "size": (first.width, first.height),
            "rotation": first.rotation % 360,
            "aspect": video.sample_aspect_ratio or Fraction(1),
            "matrix": int(first.colorspace),
            "primaries": int(first.color_primaries),
            "transfer": int(first.color_trc),
            "times": [f.pts * f.time_base for f in frames],
        }


def packets(path: Path) -> list[tuple[str, Fraction]]:
    with av.open(str(path)) as container:
        return [
            (hashlib.sha256(bytes(p)).hexdigest(), p.pts * p.time_base)
            for p in container.demux(container.streams.audio[0])
            if p.pts is not None
        ]


def assert_carried_over(source: Path, output: Path) -> None:
    before, after = facts(source), facts(output)
    assert after["times"] == before["times"]
    assert {k: v for k, v in after.items() if k != "times"} == {k: v for k, v in before.items() if k != "times"}


@pytest.mark.parametrize("clip", CLIPS)
def test_real_clips_keep_every_frame_time_and_tag(
    clip: str, data_dir: Path, tmp_path: Path, stream: Callable[..., tuple[int, str]]
) -> None:
    output = tmp_path / "out.mp4"
    status, error = stream(data_dir / "clips" / clip, "-o", output, "--steps", 0)
    assert status == 0, error
    assert_carried_over(data_dir / "clips" / clip, output)
    with av.open(str(data_dir / "clips" / clip)) as container:
        has_sound = bool(container.streams.audio)
    if has_sound:
        assert packets(output) == packets(data_dir / "clips" / clip)


@pytest.mark.parametrize("clip", CLIPS[:2])
def test_opacity_zero_passes_real_frames_bit_for_bit(clip: str, data_dir: Path, segmenter: Segmenter) -> None:
    path = data_dir / "clips" / clip
    expected = [_digest(*decoded_planes(image)) for image in decode_all(path)]
    seen: list[str] = []

    class Digests:
        notes = ()

        def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
            assert segmentation is not None
            seen.append(_digest(frame.luma, frame.chroma))

        def close(self) -> None: ...
        def __enter__(self) -> Digests:
            return self

        def __exit__(self, *_: object) -> None: ...

    segmenter.reset()
    Stream(open_source(str(path)), segmenter, Overlay(segmenter.classes, Style(opacity=0)), [Digests()]).run()
    assert seen == expected


def _digest(luma: np.ndarray, chroma: np.ndarray) -> str:
    return hashlib.sha256(luma.tobytes() + chroma.tobytes()).hexdigest()


@pytest.mark.parametrize(
    "made",
    [
        {"pts": [0, 1001, 1003, 4000, 4001, 9000, 9007, 12000], "time_base": Fraction(1, 12800), "frames": 8},
        {"rotation": 90},
        {"rotation": 270, "size": (64, 96)},
        {"sample_aspect": Fraction(16, 11)},
        {"color": color_of("bt601", full_range=True)},
        {"color": color_of("bt2020")},
        {"size": (97, 65), "pix_fmt": "yuv444p"},
        {"pix_fmt": "yuv422p"},
        {"pix_fmt": "yuv420p10le", "codec": "libx265", "options": {"x265-params": "log-level=none"}},
        {"audio": True},
    ],
    ids=["vfr", "rotated", "rotated-portrait", "aspect", "601-full", "2020", "odd", "422", "10bit", "audio"],
)
def test_made_clips_keep_size_times_rotation_aspect_and_colour(
    made: dict[str, Any], tmp_path: Path, stream: Callable[..., tuple[int, str]]
) -> None:
    source, output = make_clip(tmp_path / "in.mp4", **made), tmp_path / "out.mp4"
    status, error = stream(source, "-o", output, "--steps", 0)
    assert status == 0, error
    assert_carried_over(source, output)
    if made.get("audio"):
        assert packets(output) == packets(source)


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_survive_the_whole_way(
    matrix: str, full_range: bool, tmp_path: Path, stream: Callable[..., tuple[int, str]]
) -> None:
    """At opacity 0 and lossless: decoded planes of output and input are the same, and so are their tags."""
    color = color_of(matrix, full_range)
    source = make_clip(tmp_path / "in.mp4", image=bars, size=(256, 128), frames=3, color=color, options={"crf": "0"})
    output = tmp_path / "out.mp4"
    status, error = stream(source, "-o", output, "--steps", 0, "--opacity", 0, "--crf", 0)
    assert status == 0, error
    for before, after in zip(decode_all(source), decode_all(output), strict=True):
        assert (int(after.colorspace), int(after.color_range)) == (int(before.colorspace), int(before.color_range))
        for a, b in zip(decoded_planes(before), decoded_planes(after), strict=True):
            np.testing.assert_array_equal(a, b)


def bad_inputs(folder: Path) -> dict[str, tuple[Path, int, str]]:
    """Name -> (path, exit status, word of the message)."""
    whole = make_clip(folder / "whole.mp4", frames=50)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("this is no video\n" * 100)
    return {
        "missing": (folder / "missing.mp4", 2, "missing.mp4"),
        "a directory": (folder, 2, str(folder)),
        "empty": (folder / "empty.mp4", 1, "empty"),
        "text": (folder / "text.mp4", 1, "text.mp4"),
        "no video": (make_audio(folder / "sound.m4a"), 1, "sound.m4a"),
        "header only": (cut(whole, 0.02, folder / "cut.mp4"), 1, "cut.mp4"),
    }


@pytest.mark.parametrize("kind", ["missing", "a directory", "empty", "text", "no video", "header only"])
def test_bad_input_is_one_line_and_leaves_earlier_output_alone(
    kind: str, tmp_path: Path, stream: Callable[..., tuple[int, str]]
) -> None:
    path, expected, word = bad_inputs(tmp_path)[kind]
    output = tmp_path / "earlier.mp4"
    output.write_bytes(b"an earlier result")
    status, error = stream(path, "-o", output)
    assert status == expected
    assert len(error.strip().splitlines()) == 1
    assert word in error
    assert "Traceback" not in error
    assert output.read_bytes() == b"an earlier result"
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize("tenth", [1, 3, 5, 6, 9])
def test_a_truncated_transport_stream_gives_the_frames_it_still_has(
    tenth: int, tmp_path: Path, stream: Callable[..., tuple[int, str]]
) -> None:
    source = make_clip(tmp_path / "in.ts", frames=60, size=(192, 128), options={"g": "10"})
    part, output = cut(source, tenth / 10, tmp_path / "part.ts"), tmp_path / "out.mkv"
    status, error = stream(part, "-o", output, "--steps", 0)
    assert "Traceback" not in error
    assert status == 0, error
    assert len(facts(output)["times"]) >= 60 * tenth / 10 - 12


def test_garbage_in_the_middle_is_counted_and_skipped(tmp_path: Path, stream: Callable[..., tuple[int, str]]) -> None:
    source = make_clip(tmp_path / "in.mp4", frames=60, size=(192, 128), options={"g": "10"})
    hurt = scribble(source, 0.5, tmp_path / "hurt.mp4", length=600)
    status, error = stream(hurt, "-o", tmp_path / "out.mp4", "--steps", 0)
    assert status == 0, error
    assert " 0 damaged" not in error
    assert len(facts(tmp_path / "out.mp4")["times"]) >= 50


@pytest.mark.parametrize("word", ["folder/out.mp4", "out.gif"])
def test_an_output_that_cannot_be_is_told_before_any_work(
    word: str, tmp_path: Path, stream: Callable[..., tuple[int, str]]
) -> None:
    status, error = stream("demo:", "-o", tmp_path / "none" / word)
    assert status == 2
    assert len(error.strip().splitlines()) == 1


def test_size_change_in_stream_continues_in_first_size(tmp_path: Path, stream: Callable[..., tuple[int, str]]) -> None:
    first = make_clip(tmp_path / "a.ts", size=(192, 128), frames=20)
    second = make_clip(tmp_path / "b.ts", size=(128, 96), frames=20)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    status, error = stream(joined, "-o", tmp_path / "out.mp4", "--steps", 0)
    assert status == 0, error
    assert "size changes" in error
    assert facts(tmp_path / "out.mp4")["size"] == (192, 128)
    assert len(facts(tmp_path / "out.mp4")["times"]) == 40


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_chapters_beyond_the_end_do_not_lengthen_short_output(
    tmp_path: Path, stream: Callable[..., tuple[int, str]], suffix: str
) -> None:
    chapters = [(0, 100, "a"), (100, 90_000, "b"), (90_000, 3_600_000, "c")]
    source = make_media(tmp_path / "in.mkv", chapters=chapters)
    target = tmp_path / f"out.{suffix}"
    assert stream(source, "-o", target, "--frames", 5)[0] == 0
    with av.open(str(target)) as container:
        assert container.duration is not None
        assert container.duration / av.time_base < 0.3
        found: list[Any] = container.chapters()
    assert [(c["metadata"]["title"], float(c["end"] * c["time_base"])) for c in found] == [("a", 0.1), ("b", 0.2)]


def test_a_run_of_a_file_imports_no_live_path() -> None:
    modules = (
        "pipeline.live.stream",
        "pipeline.tracking.segmenter",
        "pipeline.tracking.follow",
        "pipeline.web",
        "pipeline.window",
    )
    code = (
        "import sys; from cliprl.pipeline.cli import main, run; from cliprl.engines.cli.command_line import checked_command;"
        "from cliprl.engines import open_bundle; open_bundle();"
        "checked_command(main.app).make_context('', ['a.mp4', '-o', 'b.mp4', '--steps', '2', '--opacity', '0.5']);"
        f"print(*{{*{[f'cliprl.{name}' for name in modules]}, 'ssl', 'pydantic', 'importlib.metadata'}} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_command_line_is_parsed_before_the_pipeline_is_imported() -> None:
    """So that the networks load while the pipeline is imported."""
    code = (
        "import sys; from cliprl.pipeline.cli import main; from cliprl.engines.cli.command_line import checked_command;"
        "checked_command(main.app).make_context('', ['a.mp4', '-o', 'b.mp4', '--steps', '2', '--opacity', '0.5']);"
        "rooms = {'.'.join(name.split('.')[:3]) for name in sys.modules if name.startswith('cliprl.pipeline.')};"
        "print(*rooms, *{'av', 'cv2', 'openvino', 'rich.console'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cliprl.pipeline.cli"]


def test_the_networks_of_a_file_are_loaded_early_and_once(
    tmp_path: Path, stream: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, load = list[str](), EngineVariant.load

    def noted(variant: EngineVariant, made: StoredEntry) -> CompiledBundle:
        threads.append(threading.current_thread().name)
        return load(variant, made)

    monkeypatch.setattr(EngineVariant, "load", noted)
    source = make_media(tmp_path / "in.mkv")
    for _ in range(2):  # the first run may have to compile them
        threads.clear()
        status, error = stream(source, "-o", tmp_path / "out.mp4", "--frames", 1)
        assert status == 0, error
    assert threads == ["early load"]


@pytest.mark.parametrize(
    "others",
    [{"web": ""}, {"window": True}, {"record": Path("r")}, {"prompt": ["a"]}, {"device": "cuda"}, {"source": "-"}],
)
def test_other_runs_load_no_network_early(others: dict[str, Any]) -> None:
    plain = {"source": __file__, "device": "cpu", "bundle": "small", "precision": "auto", "threads": 0}
    plain |= dict.fromkeys(("web", "record", "prompt", "exemplar", "input_size")) | {"window": False}
    assert cli._early_load(plain | others) is None
