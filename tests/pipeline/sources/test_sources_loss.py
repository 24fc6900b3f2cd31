"""Frames that a live sender loses: what lacks, and what refers to it, is damaged, and nothing else."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
from media import moving, video_frame

from cliprl.pipeline.sources.decoding.h264_headers import LossWatch
from cliprl.pipeline.sources.decoding.low_latency import LiveDamage
from cliprl.pipeline.sources.video import VideoSource

# Options of x264, and the frames (in decoding order) whose loss no other frame shows.
STREAMS: dict[str, dict[str, str]] = {
    "plain": {"bf": "0"},
    "b-frames": {"bf": "3", "x264-params": "b-pyramid=2:b-adapt=0"},
    "slices": {"bf": "0", "x264-params": "slices=4"},
    "small slices": {"bf": "0", "x264-params": "slice-max-size=300"},
    "fields": {"bf": "2", "x264-params": "tff=1"},
    "no key frames": {"bf": "0", "x264-params": "intra-refresh=1"},
    "4:4:4": {"bf": "0", "profile": "high444"},
}


def coded(options: dict[str, str], frames: int = 60) -> list[av.Packet]:
    """Frames of H.264 with start codes, a key frame every 20, with the times of 25 a second."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.time_base, context.framerate = 96, 96, Fraction(1, 25), Fraction(25)
    context.pix_fmt = "yuv444p" if options.get("profile") else "yuv420p"
    context.gop_size, context.options = 20, {"preset": "veryfast", "keyint_min": "20", "sc_threshold": "0", **options}
    packets = []
    for index in range(frames):
        image = video_frame(moving(index, 96, 96), context.pix_fmt)
        image.pts, image.time_base = index, context.time_base
        packets += context.encode(image)
    return [*packets, *context.encode()]


@pytest.mark.parametrize("name", STREAMS)
def test_a_lost_frame_is_found_by_its_number(name: str) -> None:
    frames = [bytes(packet) for packet in coded(STREAMS[name])]
    watch = LossWatch(None)
    assert not any(map(watch.is_after_loss, frames))
    references = [i for i, data in enumerate(frames) if data[data.rfind(b"\0\0\1") + 3] & 0x60]
    for lost in [at for at in references if 0 < at < len(frames) - 1 and (at + 1) % 20]:
        watch = LossWatch(None)
        assert [i for i, data in enumerate(frames) if i != lost and watch.is_after_loss(data)] == [lost + 1]


def test_no_damage_of_other_bytes_ends_the_watch() -> None:
    frames = [bytes(packet) for packet in coded(STREAMS["slices"], frames=3)]
    for length in range(len(frames[0])):
        watch = LossWatch(frames[0][:length])
        for data in (frames[0][:length], frames[1][length:], b"\0\0\1\x67" + frames[2][length:]):
            watch.is_after_loss(data)


@pytest.mark.parametrize(
    ("lost", "first", "last"), [(None, 60, 60), (0, 60, 60), (30, 31, 39), (38, 39, 39), (59, 60, 60)]
)
def test_live_frames_are_damaged_until_a_key_frame(lost: int | None, first: int, last: int, tmp_path: Path) -> None:
    with av.open(str(tmp_path / "live.ts"), "w") as container:
        stream: Any = container.add_stream("h264", rate=25)
        stream.width, stream.height = 96, 96
        for index, packet in enumerate(coded(STREAMS["plain"])):
            if index != lost:
                packet.stream = stream
                container.mux(packet)
    with VideoSource(str(tmp_path / "live.ts"), live=True) as source:
        marks = [(round(frame.seconds * 25), frame.damaged) for frame in source]
    assert all(is_damaged == (first <= index <= last) for index, is_damaged in marks)
    assert marks[-1][0] >= 58


def flash_video(path: Path, group: int, first: int, lost: int | None = None) -> bytes:
    """FLV of 30 frames with the times from frame `first` on."""
    with av.open(str(path), "w", format="flv") as container:
        stream: Any = container.add_stream(
            "libx264", rate=25, options={"bf": "0", "g": str(group), "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        packets = []
        for index in range(first, first + 30):
            image = video_frame(moving(index, 96, 96))
            image.pts, image.time_base = index, Fraction(1, 25)
            packets += stream.encode(image)
        container.mux([packet for at, packet in enumerate(packets + stream.encode()) if at != lost])
    return path.read_bytes()


@pytest.mark.parametrize("lost", [None, 6])
def test_frames_of_a_sender_with_new_settings_are_watched(lost: int | None, tmp_path: Path) -> None:
    """RTMP and the like have lengths in place of start codes, and the settings apart; frames may be lost before the server."""
    header = 13
    stored = flash_video(tmp_path / "a.flv", 250, 0) + flash_video(tmp_path / "b.flv", 20, 30, lost)[header:]
    (tmp_path / "live.flv").write_bytes(stored)
    with VideoSource(str(tmp_path / "live.flv"), live=True) as source:
        damaged = [round(frame.seconds * 25) for frame in source if frame.damaged]
    assert damaged == ([] if lost is None else list(range(37, 50)))


@pytest.mark.parametrize(("name", "place"), [("slices", 0), ("slices", 2), ("small slices", 1), ("large slices", 1)])
def test_a_frame_that_lacks_a_part_is_damaged(name: str, place: int, tmp_path: Path) -> None:
    packets = coded(STREAMS.get(name, {"bf": "0", "x264-params": "slices=4:qp=8"}), frames=24)
    units = bytes(packets[6]).split(b"\0\0\1")
    at = [at for at, unit in enumerate(units) if unit and unit[0] & 0x1F == 1][place]
    quarter = len(units[at]) // 4
    units[at : at + 1] = [units[at][:quarter] + units[at][-quarter:]] if name == "large slices" else []
    lacking = av.Packet(b"\0\0\1".join(units))
    lacking.pts, lacking.dts, lacking.time_base = packets[6].pts, packets[6].dts, packets[6].time_base
    with av.open(str(tmp_path / "live.ts"), "w") as container:
        stream: Any = container.add_stream("h264", rate=25)
        stream.width, stream.height = 96, 96
        for packet in [*packets[:6], lacking, *packets[7:]]:
            packet.stream = stream
            container.mux(packet)
    with VideoSource(str(tmp_path / "live.ts"), live=True) as source:
        assert [round(frame.seconds * 25) for frame in source if frame.damaged] == list(range(6, 20))


def test_damage_without_key_frames_ends() -> None:
    damage = LiveDamage(SimpleNamespace(name="mpeg2video", extradata=None))
    marks = [damage.spreads(is_key=False, damaged=index in (0, 5)) for index in range(500)]
    assert (marks[0], marks[1:5], marks[5:105], marks[400:]) == (True, [False] * 4, [True] * 100, [False] * 100)
