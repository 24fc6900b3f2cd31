"""Every frame of a video comes out: in order, with its own time, size and colour, 8-bit 4:2:0 bit for bit."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.bitstream import BitStreamFilterContext
from media import (
    assert_same,
    bar_error,
    bars,
    color_of,
    decode_all,
    decoded_planes,
    make_audio,
    make_clip,
    moving,
    to_rgb,
    video_frame,
)

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.color import ColorSpace, rgb_to_yuv
from cliprl.pipeline.sources import open_source


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("b.mp4", {"options": {"bf": "3"}, "frames": 30}),
        ("b.mkv", {"options": {"bf": "3"}, "frames": 30}),
        ("b.ts", {"options": {"bf": "3"}, "frames": 30}),
        ("b.mov", {"codec": "mpeg4"}),
        ("b.avi", {"codec": "mpeg4"}),
        ("b.webm", {"codec": "libvpx-vp9"}),
        ("padded.mkv", {"codec": "ffv1", "size": (102, 62)}),
    ],
)
def test_every_container_gives_pyavs_own_frames(tmp_path: Path, file: str, options: dict[str, Any]) -> None:
    path = make_clip(tmp_path / file, **options)
    expected = decode_all(path)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == len(expected) == options.get("frames", 12)
    for frame, image in zip(frames, expected, strict=True):
        assert_same(frame, image)
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert source.info.notes == ()


def test_a_variable_rate_keeps_its_times_to_the_tick(tmp_path: Path) -> None:
    pts = [0, 3, 4, 9, 20, 21, 22, 40, 41, 50, 51, 77]
    path = make_clip(tmp_path / "vfr.mkv", pts=pts, time_base=Fraction(1, 1000), options={"bf": "2"})
    with open_source(path) as source:
        assert [frame.pts for frame in source] == pts
        assert source.info.time_base == Fraction(1, 1000)


def test_a_file_without_times_is_timed_at_its_rate(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "raw.h264", format="h264", rate=50, options={"bf": "2"})
    with open_source(path) as source:
        seconds = [frame.seconds for frame in source]
    assert seconds == pytest.approx([i / 50 for i in range(12)])
    assert source.info.notes == ("the file has no times: frames are timed at 50 FPS",)


def test_times_that_repeat_are_put_in_order_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "twice.mkv"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, pts in enumerate((0, 1, 1, 2)):
            frame = video_frame(moving(index, 48, 64))
            frame.pts, frame.time_base = pts, Fraction(1, 25)
            container.mux(stream.encode(frame))
    expected = decode_all(path)
    with open_source(path) as source:
        frames = list(source)
    assert len(frames) == len(expected) == 4
    for frame, image in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.luma, decoded_planes(image)[0])
    assert [frame.pts for frame in frames] == [0, 40, 60, 80]
    assert "repeat" in source.info.notes[0]


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "nv12", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]
)
def test_colour_bars_are_right(tmp_path: Path, pix_fmt: str, matrix: str, full_range: bool) -> None:
    color = color_of(matrix, full_range)
    codec = "rawvideo" if pix_fmt == "nv12" else "ffv1"
    path = make_clip(
        tmp_path / "bars.mkv", codec=codec, pix_fmt=pix_fmt, color=color, image=bars, size=(128, 32), frames=2
    )
    with open_source(path) as source:
        for frame in source:
            assert frame.color == color
            assert bar_error(frame) <= 2
        assert source.info.color == color


@pytest.mark.parametrize(
    ("file", "codec", "pix_fmt"),
    [
        ("a.mkv", "ffv1", "bgr0"),
        ("a.mkv", "ffv1", "bgra"),
        ("a.mkv", "ffv1", "gbrp10le"),
        ("a.mp4", "libx264rgb", "rgb24"),
        ("a.avi", "rawvideo", "bgr24"),
        ("a.png", "png", "rgb24"),
        ("a.png", "png", "rgb48be"),
    ],
)
@pytest.mark.parametrize("size", [(128, 32), (129, 33)])
def test_rgb_becomes_tagged_bt709(tmp_path: Path, file: str, codec: str, pix_fmt: str, size: tuple[int, int]) -> None:
    options = {"qp": "0"} if codec == "libx264rgb" else {}
    path = make_clip(tmp_path / file, codec=codec, pix_fmt=pix_fmt, image=bars, size=size, frames=1, options=options)
    with open_source(path) as source:
        frame = next(iter(source))
    color = frame.color
    assert (color.matrix, color.full_range, color.space_tag, color.range_tag) == ("bt709", False, 1, 1)
    assert bar_error(frame) <= 2


def test_a_palette_is_rgb(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.gif", codec="gif", pix_fmt="rgb8", image=lambda i, h, w: bars(i, h, w) // 128 * 255)
    with open_source(path) as source:
        frame = next(iter(source))
    assert np.abs(to_rgb(frame)[:, 6] - (252, 252, 255)).max() <= 2  # red and green have three bits: 7 * 36
    assert frame.color.matrix == "bt709"


@pytest.mark.parametrize("pix_fmt", ["yuvj420p", "yuvj422p", "yuvj444p"])
def test_mjpeg_is_full_range_bt601(tmp_path: Path, pix_fmt: str) -> None:
    path = make_clip(
        tmp_path / "a.avi",
        codec="mjpeg",
        pix_fmt=pix_fmt,
        color=color_of("bt601", True),
        image=bars,
        size=(128, 32),
        options={"qmin": "1", "qmax": "1"},
    )
    with open_source(path) as source:
        frame = next(iter(source))
    assert (frame.color.matrix, frame.color.full_range, frame.color.range_tag) == ("bt601", True, 2)
    assert bar_error(frame) <= 4  # a JPEG of the best quality is off by a step or two itself


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "gray16le"])
def test_grey_keeps_its_range(tmp_path: Path, pix_fmt: str) -> None:
    path = make_clip(
        tmp_path / "a.mkv", codec="ffv1", pix_fmt=pix_fmt, color=ColorSpace("bt709", True, 2, 2), image=bars
    )
    with open_source(path) as source:
        frame = next(iter(source))
    expected = rgb_to_yuv(bars(0, 64, 96), ColorSpace("bt709", True))[..., 0]
    assert frame.color.full_range
    assert np.abs(frame.luma.astype(int) - expected).max() <= 1
    assert (frame.chroma == 128).all()


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "bgr0"])
@pytest.mark.parametrize("size", [(95, 63), (96, 63), (95, 64)])
def test_odd_sizes_round_chroma_up(tmp_path: Path, size: tuple[int, int], pix_fmt: str) -> None:
    path = make_clip(tmp_path / "odd.mkv", codec="ffv1", pix_fmt=pix_fmt, size=size, color=color_of("bt709"))
    with open_source(path) as source:
        frame = next(iter(source))
    width, height = size
    assert frame.luma.shape == (height, width)
    assert frame.chroma.shape == (-(-height // 2), -(-width // 2), 2)
    expected = moving(0, height, width).astype(float)
    assert np.abs(to_rgb(frame) - expected).mean() < 12  # 4:2:0 blurs colour, but shifts nothing
    assert np.abs(frame.luma - rgb_to_yuv(moving(0, height, width), ColorSpace())[..., 0].astype(int)).max() <= 1


def test_rotation_aspect_audio_and_tags_are_told(tmp_path: Path) -> None:
    color = color_of("bt2020")
    path = make_clip(tmp_path / "phone.mp4", rotation=90, sample_aspect=Fraction(4, 3), color=color, audio=True)
    with open_source(path) as source:
        info, frame = source.info, next(iter(source))
    assert (info.rotation, info.sample_aspect, info.color) == (90, Fraction(4, 3), color)
    assert (frame.rotation, frame.sample_aspect, frame.color) == (90, Fraction(4, 3), color)
    assert (info.width, info.height, info.rate, info.frames) == (96, 64, 25, 12)
    assert info.seconds == pytest.approx(12 / 25)
    assert info.passthrough is not None
    assert [track.codec for track in info.passthrough.tracks] == ["aac"]
    assert not info.live
    assert not info.interlaced


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_interlaced_frames_say_so(tmp_path: Path, order: str) -> None:
    path = make_clip(tmp_path / "fields.mp4", options={"x264-params": f"{order}=1:interlaced=1"})
    with open_source(path) as source:
        assert source.info.interlaced
        assert source.info.bottom_field_first == (order == "bff")
        assert all(frame.interlaced for frame in source)


@pytest.mark.parametrize(("codec", "kind"), [("libx264", "h264"), ("libx265", "hevc")])
def test_columns_that_a_stream_cuts_off_are_not_shown(tmp_path: Path, codec: str, kind: str) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    path = make_clip(tmp_path / f"a.{kind}", format=kind, frames=3, size=(160, 128), codec=codec, options=options)
    edges = f"{kind}_metadata=crop_left=10:crop_right=6:crop_top=4:crop_bottom=2"
    with av.open(str(path)) as whole, (tmp_path / f"b.{kind}").open("wb") as cropped:
        crop = BitStreamFilterContext(edges, whole.streams.video[0])
        for packet in whole.demux(video=0):
            cropped.writelines(bytes(part) for part in crop.filter(packet if packet.size else None))
    with open_source(tmp_path / f"b.{kind}") as source:
        shown = next(iter(source))
    luma, chroma = decoded_planes(decode_all(path)[0])
    assert np.array_equal(shown.luma, luma[4:-2, 10:-6])
    assert np.array_equal(shown.chroma, chroma[2:-1, 5:-3])


def test_a_size_change_is_carried_by_the_frame(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "a.h264", format="h264", size=(96, 64)).read_bytes()
    large = make_clip(tmp_path / "b.h264", format="h264", size=(128, 80)).read_bytes()
    (tmp_path / "both.h264").write_bytes(small + large)
    with open_source(tmp_path / "both.h264") as source:
        sizes = [(frame.width, frame.height) for frame in source]
    assert sizes == [(96, 64)] * 12 + [(128, 80)] * 12
    assert any("size changes at frame 12" in note for note in source.info.notes)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda path: None, UsageError, "does not exist"),
        (lambda path: path.mkdir(), UsageError, "is a folder"),
        (lambda path: path.touch(), CliprlError, "is empty"),
        (lambda path: path.write_text("not a video\n" * 50), CliprlError, "not a video"),
        (make_audio, CliprlError, "no video stream"),
    ],
)
def test_what_is_no_video_is_said_in_one_line(tmp_path: Path, make: Any, kind: type[CliprlError], words: str) -> None:
    path = tmp_path / "input.mp4"
    make(path)
    with pytest.raises(CliprlError) as caught:
        open_source(path)
    assert caught.value.exit_status == kind.exit_status
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_ends_cleanly_and_not_after_close(tmp_path: Path) -> None:
    source = open_source(make_clip(tmp_path / "a.mp4", frames=3))
    assert len(list(source)) == 3
    assert source.read() is None
    assert source.read() is None
    source.close()
    source.close()
    with pytest.raises(UsageError, match="closed"):
        source.read()


def test_name_with_colon_or_bracket_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a:b.mp4", "take [1].mp4", "100%d.mp4"):
        make_clip(tmp_path / "plain.mp4").rename(tmp_path / name)
        with open_source(name) as source:
            assert len(list(source)) == 12


def test_opening_a_thousand_times_leaves_nothing_behind(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "a.mp4", frames=3)
    process = psutil.Process()

    def use(times: int) -> tuple[int, int]:
        for _ in range(times):
            with open_source(path) as source:
                assert len(list(source)) == 3
        return process.num_fds(), process.memory_info().rss

    use(200)
    files, memory = use(1)
    later_files, later_memory = use(1000)
    assert later_files == files
    assert later_memory - memory < 8e6


def test_a_name_may_be_bytes() -> None:
    with open_source(b"demo:?seconds=0.1&size=96x64") as source:
        assert source.info.width == 96
