"""The video sink: every frame with its own time, size, colour and sound, and a file that plays whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate, islice, pairwise, product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from limits import file_size_limit
from media import make_clip
from sound_media import make_media

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.buffers import FrameRing
from cliprl.pipeline.core.color import ColorSpace
from cliprl.pipeline.core.frame import Frame, Plane, allocate_planes
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.sinks import VideoSink, open_sink
from cliprl.pipeline.sinks.video.encoder import VideoEncoder
from cliprl.pipeline.sources import open_source

HELPERS = Path(__file__).parents[2] / "helpers"
TICKS = Fraction(1, 90000)
# A variable rate: short, long and one-tick steps.
TIMES = list(accumulate([3003, 3000, 1, 9000, 3600, 1501, 1500, 90000, 7, 3003, 3003], initial=0))


def image(index: int, height: int, width: int) -> tuple[Plane, Plane]:
    """Planes that differ in every frame, with noise that only a lossless codec keeps."""
    random = np.random.default_rng(index)
    luma = random.integers(16, 236, (height, width), np.uint8)
    return luma, random.integers(16, 241, ((height + 1) // 2, (width + 1) // 2, 2), np.uint8)


def make_frames(
    times: list[int], size: tuple[int, int] = (48, 64), time_base: Fraction = TICKS, **fields: Any
) -> list[Frame]:
    """Frames of `size` (height, width) with these times; each lasts until the next, the last 1234 ticks."""
    steps = [b - a for a, b in pairwise(times)] + [1234]
    return [
        Frame(*image(i, *size), pts, time_base, i, duration=step, **fields)
        for i, (pts, step) in enumerate(zip(times, steps, strict=True))
    ]


def scene_of(frames: list[Frame], **fields: Any) -> OutputSpec:
    first = frames[0]
    return OutputSpec(StreamInfo("clip", first.height, first.width, first.time_base, Fraction(25), **fields), ())


def write(path: Path, frames: list[Frame], *, preset: str = "ultrafast", crf: float = 0, **fields: Any) -> list[str]:
    """Write frames to a video, lossless; returns the sink's notes."""
    with VideoSink(path, scene_of(frames, **fields), crf=crf, preset=preset) as sink:
        for frame in frames:
            sink.write(frame, None)
    return sink.notes


def run(sink: VideoSink, frames: list[Frame], error: BaseException | None = None) -> None:
    """Write frames, then fail with `error`. What stood at the target stays there as long as the sink is open."""
    earlier = sink.target.read_bytes()
    with sink:
        for frame in frames:
            sink.write(frame, None)
        assert sink.target.read_bytes() == earlier
        if error is not None:
            raise error


def decode(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def times_of(path: Path) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in decode(path)]


def times_until_cut(path: Path) -> list[Fraction]:
    """Times of the frames of a file whose last packet may be cut off."""
    times = []
    with av.open(str(path)) as container, suppress(av.InvalidDataError):
        for frame in container.decode(video=0):
            times.append(frame.pts * frame.time_base)
    return times


def planes_of(frame: Any) -> tuple[Plane, Plane]:
    """NV12 planes of a decoded 4:2:0 frame of even size."""
    height, width = frame.height, frame.width
    data = frame.to_ndarray(format="yuv420p").ravel()
    chroma = data[height * width :].reshape(2, height // 2, width // 2)
    return data[: height * width].reshape(height, width), np.moveaxis(chroma, 0, -1)


def audio_packets(path: Path, until: float | None = None) -> list[tuple[Fraction, bytes]]:
    """Start and bytes of the audio packets that begin before `until` seconds."""
    with av.open(str(path)) as container:
        packets = [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]
    return [p for p in packets if until is None or p[0] < until]


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("time_base", [TICKS, Fraction(1001, 30000), Fraction(1, 25), Fraction(1, 10**6)])
@pytest.mark.parametrize("start", [0, 3003, 2**33])
def test_times_are_kept_to_the_tick(tmp_path: Path, suffix: str, time_base: Fraction, start: int) -> None:
    path = tmp_path / f"out.{suffix}"
    frames = make_frames([start + t for t in TIMES], time_base=time_base)
    assert write(path, frames, crf=23) == []
    decoded = decode(path)
    assert [f.pts * f.time_base for f in decoded] == [f.pts * time_base for f in frames]
    assert [f.duration * f.time_base for f in decoded] == [f.duration * time_base for f in frames]
    assert decoded[0].time_base == Fraction(1, time_base.denominator)


def test_matroska_keeps_milliseconds_and_says_when_that_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    assert write(path, make_frames(TIMES[::2], time_base=Fraction(1, 1000))) == []
    assert times_of(path) == [Fraction(t, 1000) for t in TIMES[::2]]
    (note,) = write(path, make_frames(TIMES))
    assert "millisecond" in note
    for expected, found in zip(TIMES, times_of(path), strict=True):
        assert abs(expected * TICKS - found) <= Fraction(1, 2000)


def test_times_below_zero_move_the_stream(tmp_path: Path) -> None:
    frames = make_frames([-500, 100, 900])
    write(tmp_path / "out.mp4", frames)
    assert times_of(tmp_path / "out.mp4") == [0, 600 * TICKS, 1400 * TICKS]


def test_a_live_stream_begins_at_zero(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", make_frames([10**9, 10**9 + 3600]), live=True)
    assert times_of(tmp_path / "out.mp4") == [0, 3600 * TICKS]


def test_a_frame_out_of_order_is_moved_behind_the_last(tmp_path: Path) -> None:
    (note,) = write(tmp_path / "out.mp4", make_frames([0, 3600, 3600, 3000, 7200]))
    assert "frame 2" in note
    assert times_of(tmp_path / "out.mp4") == [t * TICKS for t in (0, 3600, 3601, 3602, 7200)]


@pytest.mark.parametrize("preset", ["ultrafast", "veryfast"])
@pytest.mark.parametrize("size", [(48, 64), (50, 70), (2, 2), (34, 1922)])
def test_the_encoder_gets_the_very_planes(tmp_path: Path, preset: str, size: tuple[int, int]) -> None:
    frames = make_frames(TIMES[:4], size)
    write(tmp_path / "out.mp4", frames, preset=preset)
    for frame, decoded in zip(frames, decode(tmp_path / "out.mp4"), strict=True):
        luma, chroma = planes_of(decoded)
        assert np.array_equal(luma, frame.luma)
        assert np.array_equal(chroma, frame.chroma)


@pytest.mark.parametrize(("preset", "control"), [("ultrafast", b"rc=cqp"), ("veryfast", b"rc=crf")])
def test_the_fastest_preset_has_a_constant_quantizer(tmp_path: Path, preset: str, control: bytes) -> None:
    for crf in (18, 36):
        write(tmp_path / f"{crf}.mp4", make_frames(TIMES[:4]), preset=preset, crf=crf)
    fine, coarse = ((tmp_path / f"{crf}.mp4").read_bytes() for crf in (18, 36))
    assert control in fine  # as x264 states its settings
    assert len(fine) > len(coarse)


@pytest.mark.parametrize(("size", "copies"), [((64, 128), 0), ((64, 100), 6)])  # libav pads lines of 100
def test_frames_of_a_ring_are_encoded_without_a_copy(
    tmp_path: Path, size: tuple[int, int], copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill, filled = VideoEncoder._fill, list[Plane]()
    monkeypatch.setattr(VideoEncoder, "_fill", lambda self, *planes: (filled.append(planes[0]), fill(self, *planes)))
    ring, frames = FrameRing(2), make_frames(TIMES[:6], size)
    with VideoSink(tmp_path / "x.mp4", scene_of(frames), crf=0) as sink:
        for frame in frames:
            planes = ring.acquire(*size)
            for plane, values in zip(planes, (frame.luma, frame.chroma), strict=True):
                plane[:] = values
            ring.publish(replace(frame, luma=planes[0], chroma=planes[1]))
            taken = ring.take()
            assert taken is not None
            sink.write(taken, None)
            assert replace(taken, luma=frame.luma).shared_image is None  # other planes than the slot's
            ring.release(taken)
            for plane in planes:
                plane[:] = 0  # reaches no frame that was written
    assert len(filled) == copies
    for image, frame in zip(decode(tmp_path / "x.mp4"), frames, strict=True):
        for plane, values in zip(planes_of(image), (frame.luma, frame.chroma), strict=True):
            np.testing.assert_array_equal(plane, values)


def test_planes_with_gaps_between_their_lines(tmp_path: Path) -> None:
    (frame,) = make_frames([0], (96, 128))
    frame.luma, frame.chroma = frame.luma[::2, ::2], frame.chroma[::2, 64 // 2 :]
    write(tmp_path / "out.mp4", [frame])
    luma, chroma = planes_of(decode(tmp_path / "out.mp4")[0])
    assert np.array_equal(luma, frame.luma)
    assert np.array_equal(chroma, frame.chroma)


@pytest.mark.parametrize("size", [(49, 64), (48, 65), (33, 35), (1, 1)])
def test_odd_sizes_are_kept(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = make_frames([0, 3600], size)
    (note,) = write(tmp_path / "out.mp4", frames)
    assert "odd" in note
    for frame, decoded in zip(frames, decode(tmp_path / "out.mp4"), strict=True):
        luma, cb, cr = decoded.to_ndarray(format="yuv444p")
        rows, columns = np.arange(size[0]) // 2, np.arange(size[1]) // 2
        assert np.array_equal(luma, frame.luma)
        assert np.array_equal(np.stack([cb, cr], axis=-1), frame.chroma[rows][:, columns])


def test_a_side_that_h264_can_not_have_is_told(tmp_path: Path) -> None:
    sink = open_sink(f"{tmp_path}/a.mp4", OutputSpec(StreamInfo("a", 16, 16386, Fraction(1, 25)), ()))
    with pytest.raises(CliprlError, match=r"16386x16 can't be encoded: .* sides of up to 16384"), sink:
        sink.write(Frame(*allocate_planes(16, 16386), 0, Fraction(1, 25), 0), None)


def test_another_size_is_fitted_into_the_first(tmp_path: Path) -> None:
    frames = make_frames([0, 3600, 7200], (64, 64))
    frames[1].luma, frames[1].chroma = np.full((64, 128), 200, np.uint8), np.full((32, 64, 2), (90, 160), np.uint8)
    (note,) = write(tmp_path / "out.mp4", frames)
    assert "128x64" in note
    first, second, third = (planes_of(f) for f in decode(tmp_path / "out.mp4"))
    assert np.array_equal(first[0], frames[0].luma)
    assert np.array_equal(third[0], frames[2].luma)
    luma, chroma = second
    assert (luma[16:48] == 200).all()
    assert (chroma[8:24] == (90, 160)).all()
    assert (luma[:16] == 16).all()
    assert (luma[48:] == 16).all()
    assert (chroma[:8] == 128).all()


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_colour_tags_are_written_as_they_were(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    for space, range_, primaries, transfer in [(2, 0, 2, 2), *product((1, 6, 9), (1, 2), (1, 2, 9), (2, 6, 14))]:
        color = ColorSpace.from_tags(48, space, range_, primaries, transfer)
        write(path, make_frames([0], color=color), crf=23)
        (frame,) = decode(path)
        found = (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc)
        assert found == (space, range_, primaries, transfer)


def test_the_full_range_of_a_jpeg_is_said(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", make_frames([0], color=ColorSpace.from_tags(48, 2, 0, jpeg=True)))
    assert decode(tmp_path / "out.mp4")[0].color_range == 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_rotation_and_sample_aspect(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    for rotation, aspect in ((0, None), (90, Fraction(16, 15)), (180, Fraction(1)), (270, Fraction(768, 767))):
        write(path, make_frames([0, 3600], rotation=rotation, sample_aspect=aspect))
        with av.open(str(path)) as container:
            assert container.streams.video[0].sample_aspect_ratio == aspect
            assert next(container.decode(video=0)).rotation % 360 == rotation


@pytest.mark.parametrize(("bottom_first", "order"), [(False, 2), (True, 3)])
def test_interlaced_flags(tmp_path: Path, bottom_first: bool, order: int) -> None:
    frames = make_frames([0, 3600, 7200], interlaced=True)
    write(tmp_path / "out.mp4", frames, interlaced=True, bottom_field_first=bottom_first)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.field_order == order
        decoded = list(container.decode(video=0))
    assert all(frame.interlaced_frame for frame in decoded)
    assert all(np.array_equal(planes_of(d)[0], f.luma) for d, f in zip(decoded, frames, strict=True))
    assert not any(
        f.interlaced_frame for f in (write(tmp_path / "p.mp4", make_frames([0])), decode(tmp_path / "p.mp4"))[1]
    )


def test_interlaced_lines_that_x264_cannot_pair(tmp_path: Path) -> None:
    (note,) = write(tmp_path / "out.mp4", make_frames([0], (50, 64), interlaced=True))
    assert "multiple of 4" in note


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of pictures with sound."""
    return make_clip(tmp_path_factory.mktemp("clip") / "in.mp4", frames=75, audio=True)


def copy(source: Path | str, target: Path, count: int | None = None) -> list[str]:
    """Write the first `count` frames of a file, with what is carried over beside them; the notes of the output."""
    with open_source(str(source)) as frames, VideoSink(target, OutputSpec(frames.info, ()), crf=18) as sink:
        for frame in islice(frames, count):
            sink.write(frame, None)
    return sink.notes


def clip_frames(path: Path, count: int | None = None) -> list[Frame]:
    frames = [Frame(*planes_of(f), f.pts, f.time_base, i, duration=f.duration or 0) for i, f in enumerate(decode(path))]
    return frames[:count]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
def test_audio_is_copied_unchanged_and_stays_in_time(tmp_path: Path, clip: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    frames = clip_frames(clip)
    notes = copy(clip, path)
    assert notes == []
    expected, found = audio_packets(clip), audio_packets(path)
    assert [data for _, data in found] == [data for _, data in expected]
    tolerance = Fraction(1, 1000) if suffix == "mkv" else 0
    assert all(abs(a[0] - b[0]) <= tolerance for a, b in zip(expected, found, strict=True))
    assert times_of(path) == [f.pts * f.time_base for f in frames]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_pipe_takes_a_video_with_its_audio(tmp_path: Path, clip: Path, suffix: str) -> None:
    pipe, received = tmp_path / f"pipe{suffix}", tmp_path / f"received{suffix}"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cp", pipe, received])
    assert [note for note in copy(clip, pipe) if "Matroska" not in note] == []
    assert reader.wait(60) == 0
    copy(clip, tmp_path / f"whole{suffix}")
    assert times_of(received) == times_of(tmp_path / f"whole{suffix}")
    assert audio_packets(received) == audio_packets(tmp_path / f"whole{suffix}")


@pytest.mark.parametrize("name", ["pipe.mkv", "pipe.mp4"])
def test_a_pipe_whose_reader_ends_is_an_error_about_it(tmp_path: Path, clip: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    reader = subprocess.Popen(["head", "-c", "10", tmp_path / name], stdout=subprocess.DEVNULL)
    with pytest.raises(CliprlError, match=r"\(Broken pipe\): let its reader"):
        copy(clip, tmp_path / name)
    reader.wait(60)


def test_audio_and_pictures_are_interleaved(tmp_path: Path, clip: Path) -> None:
    copy(clip, tmp_path / "out.mkv")
    latest = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "out.mkv")) as container:
        for packet in container.demux():
            if packet.size:
                latest[packet.stream.type] = float(packet.pts * packet.time_base)
                assert abs(latest["video"] - latest["audio"]) < 0.2


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_audio_longer_than_the_picture_is_kept(tmp_path: Path, suffix: str) -> None:
    long = make_long_audio(tmp_path / "long.mp4")
    copy(long, tmp_path / f"out.{suffix}")
    expected = audio_packets(long)
    assert expected[-1][0] > 4
    assert [d for _, d in audio_packets(tmp_path / f"out.{suffix}")] == [d for _, d in expected]


def make_long_audio(path: Path) -> Path:
    """One second of pictures, five of sound: made by copying two clips into one."""
    short = make_clip(path.with_name("short.mp4"), frames=25)
    sound = make_clip(path.with_name("sound.mp4"), frames=125, audio=True)
    with av.open(str(short)) as a, av.open(str(sound)) as b, av.open(str(path), "w") as out:
        streams = [out.add_stream_from_template(a.streams.video[0]), out.add_stream_from_template(b.streams.audio[0])]
        packets = [*a.demux(video=0), *b.demux(audio=0)]
        for packet in sorted((p for p in packets if p.size), key=lambda p: p.dts * p.time_base):
            packet.stream = streams[packet.stream.type == "audio"]
            out.mux(packet)
    return path


def test_audio_ends_with_a_picture_that_was_cut_short(tmp_path: Path, clip: Path) -> None:
    copy(clip, tmp_path / "out.mp4", 25)
    assert [d for _, d in audio_packets(tmp_path / "out.mp4")] == [d for _, d in audio_packets(clip, until=1.0)]


def test_audio_of_a_transport_stream(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.ts", frames=50, audio=True)
    frames = clip_frames(source)
    assert frames[0].pts > 0
    notes = copy(source, tmp_path / "out.mp4")
    assert notes == []
    assert times_of(tmp_path / "out.mp4") == [f.pts * f.time_base for f in frames]
    copied = audio_packets(tmp_path / "out.mp4")
    # The seven bytes before each frame of sound are the transport stream's, and go.
    assert [d for _, d in copied] == [d[7:] for _, d in audio_packets(source)]
    assert sum(f.samples for f in av.open(str(tmp_path / "out.mp4")).decode(audio=0)) >= 2 * 48000


def test_audio_unsupported_by_the_container_is_omitted_with_a_note(tmp_path: Path) -> None:
    source = make_media(tmp_path / "in.mkv", audio=("wavpack",))
    (note,) = copy(source, tmp_path / "out.mp4")
    assert "wavpack" in note
    assert "name the output .mkv" in note
    assert len(decode(tmp_path / "out.mp4")) == 12
    assert copy(source, tmp_path / "out.mkv") == []
    assert audio_packets(tmp_path / "out.mkv") == audio_packets(source)


def test_an_interrupted_run_plays(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"earlier")
    frames = clip_frames(clip)
    with pytest.raises(KeyboardInterrupt):
        run(VideoSink(path, scene_of(frames)), frames[:30], KeyboardInterrupt())
    assert len(decode(path)) == 30
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_failed_run_leaves_the_earlier_output(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"earlier")
    frames = make_frames(TIMES)
    sink = VideoSink(path, scene_of(frames))
    with pytest.raises(CliprlError, match="source broke"):
        run(sink, frames, CliprlError("source broke"))
    assert path.read_bytes() == b"earlier"
    assert times_of(tmp_path / ".out.partial.mp4") == [t * TICKS for t in TIMES]
    (note,) = sink.notes
    assert ".out.partial.mp4" in note


def test_a_run_without_frames_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"earlier")
    sink = VideoSink(path, scene_of(make_frames([0])))
    sink.close()
    sink.close()
    assert path.read_bytes() == b"earlier"
    assert os.listdir(tmp_path) == ["out.mp4"]
    with pytest.raises(CliprlError, match="closed"):
        sink.write(make_frames([0])[0], None)


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("limit", [150_000, 400_000])
def test_a_full_disk_keeps_what_was_written(tmp_path: Path, suffix: str, limit: int) -> None:
    path, partial = tmp_path / f"out.{suffix}", tmp_path / f".out.partial.{suffix}"
    path.write_bytes(b"earlier")
    frames = make_frames(list(range(0, 400 * 3600, 3600)))
    sink = VideoSink(path, scene_of(frames), crf=0)
    with file_size_limit(limit), pytest.raises(CliprlError) as failure:
        run(sink, frames)
    message = str(failure.value)
    assert os.strerror(errno.EFBIG) in message
    assert str(path) in message
    assert str(partial) in message
    assert "\n" not in message
    assert failure.value.exit_status == 1
    assert path.read_bytes() == b"earlier"
    kept = times_until_cut(partial)
    assert len(kept) >= limit / 8000
    assert kept == [f.pts * TICKS for f in frames[: len(kept)]]


def test_a_disk_that_is_full_only_at_the_end(tmp_path: Path) -> None:
    frames = make_frames(list(range(0, 60 * 3600, 3600)))
    write(tmp_path / "whole.mp4", frames)
    sink = VideoSink(tmp_path / "out.mp4", scene_of(frames), crf=0)
    for frame in frames:
        sink.write(frame, None)
    with (
        file_size_limit((tmp_path / "whole.mp4").stat().st_size - 500),
        pytest.raises(CliprlError, match="can't write"),
    ):
        sink.close()
    sink.close()
    assert not (tmp_path / "out.mp4").exists()
    assert len(decode(tmp_path / ".out.partial.mp4")) >= 50


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_killed_run_can_be_read(tmp_path: Path, suffix: str) -> None:
    code = f"""
        import os, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(HELPERS)]!r}
        from pathlib import Path
        from test_sinks_video import VideoSink, make_frames, scene_of
        frames = make_frames(list(range(0, 200 * 3600, 3600)), (96, 128))
        sink = VideoSink(Path("out.{suffix}"), scene_of(frames))
        for frame in frames:
            sink.write(frame, None)
        os.kill(os.getpid(), 9)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [f".out.partial.{suffix}"]
    assert len(decode(tmp_path / f".out.partial.{suffix}")) >= 150


@pytest.mark.parametrize(
    ("name", "reason"), [("nowhere/out.mp4", "no folder"), ("folder.mp4", "is a folder"), ("out.avi", "names no kind")]
)
def test_misuse_is_refused_before_any_work(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UsageError, match=reason) as failure:
        VideoSink(tmp_path / name, scene_of(make_frames([0]))) if name == "folder.mp4" else open_sink(
            tmp_path / name, scene_of(make_frames([0]))
        )
    assert failure.value.exit_status == 2
    assert os.listdir(tmp_path) == ["folder.mp4"]


def test_a_folder_that_takes_no_files_is_refused() -> None:
    with pytest.raises(UsageError, match="choose another place"):
        VideoSink(Path("/proc/out.mp4"), scene_of(make_frames([0])))


@pytest.mark.parametrize("options", [{"preset": "warp"}, {"crf": 52}, {"crf": -1}])
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"unknown|out of range"):
        open_sink(tmp_path / "out.mp4", scene_of(make_frames([0])), **options)
    assert os.listdir(tmp_path) == []


def test_the_input_is_not_overwritten(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(clip)
    scene = OutputSpec(StreamInfo(str(clip), 48, 64, TICKS), ())
    with pytest.raises(UsageError, match="the input itself"):
        open_sink(tmp_path / "link.mp4", scene)


CLIPS: dict[str, dict[str, Any]] = {
    "plain.mp4": {},
    "phone.mov": {"rotation": 90, "audio": True},
    "anamorphic.mkv": {"sample_aspect": Fraction(16, 11), "time_base": Fraction(1, 1000), "pts": [0, 40, 81, 250, 251]},
    "variable.mp4": {"time_base": Fraction(1, 90000), "pts": TIMES[:5], "color": ColorSpace.from_tags(64, 6, 1, 6, 6)},
    "full.mp4": {"color": ColorSpace.from_tags(64, 1, 2, 1, 1), "pix_fmt": "yuvj420p"},
    "still.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "old.avi": {"codec": "mpeg4", "audio": True},
    "broadcast.ts": {"codec": "mpeg2video", "audio": True},
}


@pytest.mark.parametrize("name", CLIPS)
def test_from_source_to_file_nothing_changes(tmp_path: Path, name: str) -> None:
    source = make_clip(tmp_path / name, **{"frames": 5, **CLIPS[name]})
    target = tmp_path / "out.mp4"
    sent = []
    with open_source(str(source)) as frames, VideoSink(target, OutputSpec(frames.info, ()), crf=0) as sink:
        for frame in frames:
            sink.write(frame, None)
            sent.append((frame.pts * frame.time_base, frame.luma.copy(), frame.chroma.copy()))
    assert sink.notes == []
    assert len(sent) == 5
    with open_source(str(target)) as frames:
        got = [(f.pts * f.time_base, f.luma.copy(), f.chroma.copy()) for f in frames]
        for field in ("height", "width", "rotation", "sample_aspect"):
            assert getattr(frames.info, field) == getattr(sink.info, field)
        color, expected = frames.info.color, sink.info.color
        assert (color.matrix, color.full_range) == (expected.matrix, expected.full_range)
        assert (color.space_tag, color.primaries_tag) == (expected.space_tag, expected.primaries_tag)
    for (a_time, a_luma, a_chroma), (b_time, b_luma, b_chroma) in zip(sent, got, strict=True):
        assert a_time == b_time
        assert np.array_equal(a_luma, b_luma)
        assert np.array_equal(a_chroma, b_chroma)


@pytest.mark.parametrize(
    ("luma", "chroma"),
    [
        (np.zeros((48, 64), np.uint16), np.zeros((24, 32, 2), np.uint8)),
        (np.zeros((48, 64), np.float32), np.zeros((24, 32, 2), np.uint8)),
        (np.zeros((48, 64), bool), np.zeros((24, 32, 2), np.uint8)),
        (np.zeros((48, 64, 1), np.uint8), np.zeros((24, 32, 2), np.uint8)),
        (np.zeros((48, 64), np.uint8), np.zeros((2, 24, 32), np.uint8)),
        (np.zeros((48, 64), np.uint8), np.zeros((24, 32, 2), np.int16)),
        ([[0] * 64] * 48, np.zeros((24, 32, 2), np.uint8)),
    ],
)
def test_planes_of_another_type_or_shape_are_refused(tmp_path: Path, luma: Any, chroma: Any) -> None:
    frame = make_frames([0])[0]
    sink = VideoSink(tmp_path / "out.mp4", scene_of([frame]))
    frame.luma, frame.chroma = luma, chroma  # a stage put them there
    with pytest.raises(UsageError, match="give uint8 arrays of the shapes"), sink:
        sink.write(frame, None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\0b.mp4", "\ud800.mp4", "\0"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="no file can have the name"):
        open_sink(name, scene_of(make_frames([0])))
