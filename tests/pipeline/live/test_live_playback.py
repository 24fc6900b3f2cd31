"""A file as a viewer plays it: waiting, replays and seeks, through real files of several containers."""

from __future__ import annotations

import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from waiting import until

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.live.playback import Playback, open_file_at
from cliprl.pipeline.sources import VideoSource, open_source

FRAMES, RATE, GROUP = 50, 25, 10
LIMIT = 30.0


def clip(path: Path, codec: str = "libx264") -> Path:
    """Fifty pictures whose brightness tells their number, a key frame every ten."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size, stream.bit_rate = GROUP, 4_000_000
        for number in range(FRAMES):
            image = av.VideoFrame(64, 48, "yuv420p")
            for plane in image.planes:
                plane.update(np.full((plane.height, plane.line_size), 128, np.uint8))
            image.planes[0].update(np.full((48, image.planes[0].line_size), 30 + 4 * number, np.uint8))
            image.pts, image.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def play(name: str, **options: bool) -> Playback:
    return Playback(open_source(name), lambda seconds: open_file_at(name, seconds), **options)


def number(frame: Frame) -> int:
    return round((float(np.median(frame.luma)) - 30) / 4)


def read(playback: Playback) -> Frame:
    frame = playback.read()
    assert frame is not None
    return frame


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".ts", ".avi"])
@pytest.mark.parametrize("wanted", [0, 5, 10, 27, 49])
def test_a_seek_leads_to_the_very_frame(tmp_path: Path, suffix: str, wanted: int) -> None:
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    with play(str(clip(tmp_path / f"clip{suffix}", codec))) as playback:
        before = [read(playback) for _ in range(3)]
        playback.seek(min(wanted / RATE, playback.duration or 0))
        frame = read(playback)
        assert abs(number(frame) - wanted) <= (1 if wanted == 49 else 0)
        assert playback.position == pytest.approx(number(frame) / RATE, abs=0.011)
        assert frame.pts > before[-1].pts
        assert playback.jumps == 1
        if wanted < 48:
            after = read(playback)
            assert number(after) == wanted + 1
            assert after.seconds - frame.seconds == pytest.approx(1 / RATE, abs=0.011)


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_seek_in_transport_stream_starts_at_previous_key_frame(tmp_path: Path, codec: str) -> None:
    """MPEG-TS has no index: libav's own seek ends between key frames, and all was decoded from the beginning."""
    name = str(clip(tmp_path / "clip.ts", codec))
    for frame in (15, 25, 38, 49):
        with VideoSource(name, start=frame / RATE) as source:
            assert 0 <= frame / RATE - source.origin < (GROUP + 3) / RATE
            first = source.read()
            assert first is not None
            assert number(first) == round(source.origin * RATE)


def test_at_the_end_it_waits_and_is_replayed(tmp_path: Path) -> None:
    with play(str(clip(tmp_path / "clip.mp4"))) as playback:
        ended = threading.Event()
        playback.on_end = ended.set
        seen: list[Frame] = []

        def end(times: int) -> None:
            until(lambda: playback.at_end and len(seen) == FRAMES * times)
            playback.finish()
            playback.finish()
            assert ended.is_set()

        reader = threading.Thread(target=lambda: seen.extend(playback))
        reader.start()
        end(1)
        assert playback.finished
        assert playback.played
        ended.clear()
        playback.seek(0)
        end(2)
        playback.close()
        reader.join()
    assert [number(frame) for frame in seen] == [*range(FRAMES)] * 2
    times = [frame.pts for frame in seen]
    assert times == sorted(set(times))


def test_it_waits_for_a_viewer_and_ends_without_one(tmp_path: Path) -> None:
    name = str(clip(tmp_path / "clip.mp4"))
    for release in (True, False):
        with play(name, waits=True) as playback:
            seen: list[Frame | None] = []
            reader = threading.Thread(target=lambda p=playback, s=seen: s.append(p.read()))
            reader.start()
            reader.join(0.1)
            assert reader.is_alive()
            playback.release() if release else playback.close()
            reader.join(LIMIT)
            assert (seen[0] is not None) == release


def test_what_is_written_is_played_once(tmp_path: Path) -> None:
    with play(str(clip(tmp_path / "clip.mp4")), repeats=False) as playback:
        assert playback.duration is None
        with pytest.raises(UsageError, match="output"):
            playback.seek(0)
        assert len(list(playback)) == FRAMES


@pytest.mark.parametrize("seconds", [-1.0, 2.5, float("nan"), float("inf")])
def test_a_place_outside_of_the_file_is_refused(tmp_path: Path, seconds: float) -> None:
    with play(str(clip(tmp_path / "clip.mp4"))) as playback, pytest.raises(UsageError, match="outside"):
        playback.seek(seconds)


def test_unseekable_input_is_decoded_from_its_beginning() -> None:
    name = "demo:?size=64x64&seconds=1"
    with play(name) as playback:
        first = read(playback)
        playback.seek(0.4)
        assert read(playback).pts > first.pts
        assert playback.position == pytest.approx(0.4, abs=0.01)


def test_the_demo_scene_is_opened_at_any_frame() -> None:
    name = "demo:?size=64x64&seconds=0"
    with open_file_at(name, 0.2) as source, open_source(name) as whole:
        frame, *_, same = source.read(), *(whole.read() for _ in range(6))
        assert frame is not None
        assert same is not None
        np.testing.assert_array_equal(frame.luma, same.luma)
        assert (frame.pts, source.origin) == (same.pts, 0.2)  # type: ignore[attr-defined]
    with open_file_at(name, 36_000.02) as late:  # not by rendering all frames before it
        frame = late.read()
        assert frame is not None
        assert frame.seconds == 36_000.0
    with open_file_at("demo:?size=64x64&seconds=1", 5.0) as ended:
        assert [frame.pts for frame in ended] == [24]


@pytest.mark.parametrize("seconds", [0.3, 1e308])
def test_input_of_unknown_length_seeks_within_what_was_read(seconds: float) -> None:
    with play("demo:?size=64x64&seconds=0") as playback:
        for _ in range(6):
            read(playback)
        with pytest.raises(UsageError, match=r"outside of the file: give 0 to 0\.2"):
            playback.seek(seconds)
        playback.seek(0.08)
        assert read(playback) is not None
        assert playback.position == pytest.approx(0.08, abs=0.01)
        playback.seek(0.2)  # it has been there
