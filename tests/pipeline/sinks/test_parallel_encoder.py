"""One video file by several encoders at once: the same frames and times as by one, and the same file after a fault."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from fractions import Fraction
from itertools import accumulate, count, cycle, islice, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from limits import file_size_limit
from media import make_clip

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import OutputSpec, StreamInfo
from cliprl.pipeline.cuda.codecs import nvenc_sink
from cliprl.pipeline.sinks import VideoSink, open_sink
from cliprl.pipeline.sinks.video import parallel_encoder
from cliprl.pipeline.sinks.video.parallel_encoder import ParallelEncoder, automatic_encoders
from cliprl.pipeline.sources import open_source

TICKS = Fraction(1, 90000)
# A variable rate: short, long and one-tick steps.
STEPS = (3003, 3000, 1, 9000, 3600, 1501, 7)


@pytest.fixture(autouse=True)
def _short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_encoder, "_LONGEST", 16)


def make_frames(count: int, size: tuple[int, int] = (48, 64), **fields: Any) -> list[Frame]:
    """Frames of noise with uneven times."""
    times = list(accumulate(islice(cycle(STEPS), count), initial=5000))
    frames = []
    for index, (start, end) in enumerate(pairwise(times)):
        random, (height, width) = np.random.default_rng(index), size
        luma = random.integers(16, 236, size, np.uint8)
        chroma = random.integers(16, 241, ((height + 1) // 2, (width + 1) // 2, 2), np.uint8)
        frames.append(Frame(luma, chroma, start, TICKS, index, duration=end - start, **fields))
    return frames


def spec_of(frames: list[Frame], **fields: Any) -> OutputSpec:
    first = frames[0]
    return OutputSpec(StreamInfo("clip", first.height, first.width, TICKS, Fraction(25), **fields), ())


def write(path: Path, frames: list[Frame], encoders: int, **fields: Any) -> None:
    with open_sink(path, spec_of(frames, **fields), crf=0, encoders=encoders) as sink:
        for frame in frames:
            sink.write(frame, None)


def run(sink: Any, frames: list[Frame], error: BaseException | None = None) -> None:
    """Write frames, then fail with `error`."""
    with sink:
        for frame in frames:
            sink.write(frame, None)
        if error is not None:
            raise error


def decode(path: Path) -> list[Any]:
    images = []
    with av.open(str(path)) as container, suppress(av.InvalidDataError):
        for image in container.decode(video=0):
            images.append(image)
    return images


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("x264 ")]


@pytest.fixture(autouse=True)
def _threads_end() -> Any:
    yield
    for thread in workers():
        thread.join(10)
    assert not workers()


@pytest.mark.parametrize(
    ("name", "count", "size", "interlaced"),
    [
        ("out.mp4", 65, (48, 64), False),
        ("out.mkv", 64, (48, 64), False),
        ("out.mov", 20, (47, 63), False),
        ("out.mp4", 33, (48, 64), True),
        ("out.mp4", 1, (48, 64), False),
    ],
)
def test_joined_file_holds_frames_and_times_of_one_encoder(
    tmp_path: Path, name: str, count: int, size: tuple[int, int], interlaced: bool
) -> None:
    frames, found = make_frames(count, size, interlaced=interlaced), {}
    for encoders in (1, 3):
        path = tmp_path / f"{encoders}{name}"
        write(path, frames, encoders, interlaced=interlaced)
        found[encoders] = decode(path)
        assert len(found[encoders]) == count
    for one, joined in zip(found[1], found[3], strict=True):
        assert (one.pts, one.duration, one.time_base) == (joined.pts, joined.duration, joined.time_base)
        assert one.interlaced_frame == joined.interlaced_frame == interlaced
        np.testing.assert_array_equal(one.to_ndarray(), joined.to_ndarray())
    assert [i for i, image in enumerate(found[3]) if image.key_frame] == list(range(0, count, 16))


def test_other_readers_count_and_seek_the_joined_frames(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    write(path, make_frames(50), 2)
    reader, seen = cv2.VideoCapture(str(path)), 0
    while reader.read()[0]:
        seen += 1
    assert seen == 50
    reader.set(cv2.CAP_PROP_POS_FRAMES, 40)
    assert reader.read()[0]
    with av.open(str(path)) as container:
        container.seek(int(40 * 3000 / 90000 * 1e6))
        assert next(container.decode(video=0)).key_frame
        assert container.streams.video[0].frames == 50


def test_copied_audio_is_unchanged_and_interleaved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first group is encoded last, so that all packets of the video come at once."""
    clip, encode, numbers = make_clip(tmp_path / "in.mp4", frames=50, audio=True), ParallelEncoder._encode, count()
    others = threading.Semaphore(0)

    def first_comes_last(encoder: ParallelEncoder, group: Any) -> None:
        if next(numbers) == 0:
            assert all(others.acquire(timeout=30) for _ in range(3))
        encode(encoder, group)
        others.release()

    monkeypatch.setattr(ParallelEncoder, "_encode", first_comes_last)
    with open_source(clip) as source, open_sink(tmp_path / "out.mkv", OutputSpec(source.info, ()), encoders=3) as sink:
        for frame in source:
            sink.write(frame, None)
    sound = []
    latest = {"video": 0.0, "audio": 0.0}
    for path in (clip, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            sound.append([bytes(packet) for packet in container.demux(audio=0) if packet.size])
    assert sound[0] == sound[1]
    with av.open(str(tmp_path / "out.mkv")) as container:
        for packet in container.demux():
            if packet.size:
                latest[packet.stream.type] = float(packet.pts * packet.time_base)
                assert abs(latest["video"] - latest["audio"]) < 0.2


def test_failing_encoder_keeps_the_groups_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, frames, encode = tmp_path / "out.mp4", make_frames(120), ParallelEncoder._encode
    path.write_bytes(b"earlier")

    def fails_at_the_sixth(encoder: ParallelEncoder, group: Any) -> None:
        if next(numbers) == 5:
            raise av.error.FFmpegError(errno.EIO, "planted")
        encode(encoder, group)

    numbers = iter(range(100))
    monkeypatch.setattr(ParallelEncoder, "_encode", fails_at_the_sixth)
    sink = open_sink(path, spec_of(frames), crf=0, encoders=2)
    with pytest.raises(CliprlError, match="planted"):
        run(sink, frames)
    assert path.read_bytes() == b"earlier"
    kept = decode(tmp_path / ".out.partial.mp4")
    start = frames[0].pts  # times of an unfinished file count from its first frame
    assert [image.pts * image.time_base for image in kept] == [(f.pts - start) * TICKS for f in frames[: len(kept)]]
    assert 40 <= len(kept) <= 80


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CliprlError("the source broke")])
def test_an_ended_run_keeps_every_frame(tmp_path: Path, error: BaseException) -> None:
    frames = make_frames(40)
    sink = open_sink(tmp_path / "out.mp4", spec_of(frames), encoders=3)
    with pytest.raises(type(error)):
        run(sink, frames, error)
    (kept,) = tmp_path.iterdir()
    assert kept.name == ("out.mp4" if isinstance(error, KeyboardInterrupt) else ".out.partial.mp4")
    assert len(decode(kept)) == 40


def test_a_full_disk_ends_the_encoders_too(tmp_path: Path) -> None:
    frames = make_frames(200)
    sink = open_sink(tmp_path / "out.mp4", spec_of(frames), crf=0, encoders=3)
    with file_size_limit(150_000), pytest.raises(CliprlError, match=os.strerror(errno.EFBIG)):
        run(sink, frames)
    assert len(decode(tmp_path / ".out.partial.mp4")) >= 15


def test_a_killed_process_leaves_a_file_that_plays(tmp_path: Path) -> None:
    code = f"""
        import os, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2] / "helpers")]!r}
        from test_parallel_encoder import make_frames, open_sink, parallel_encoder, spec_of
        parallel_encoder._LONGEST = 16
        frames = make_frames(300)
        sink = open_sink("out.mp4", spec_of(frames), encoders=2)
        for frame in frames:
            sink.write(frame, None)
        os.kill(os.getpid(), 9)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == [".out.partial.mp4"]
    # Two groups and the packets of a fragment, a second here, are still on their way.
    assert len(decode(tmp_path / ".out.partial.mp4")) >= 300 - 2 * 16 - 50


# With every encoder held up, their frames and one more; with one of them, three groups: the other encodes two.
@pytest.mark.parametrize(("held", "bound"), [(2, 2 * 16 + 1), (1, 3 * 16)])
def test_waiting_frames_are_bounded_however_slow_encoders_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int, bound: int
) -> None:
    gate, encode, frames, given = threading.Event(), ParallelEncoder._encode, make_frames(100), list[int]()
    begun = count()

    def waits(encoder: ParallelEncoder, group: Any) -> None:
        if next(begun) < held:
            gate.wait()
        encode(encoder, group)

    monkeypatch.setattr(ParallelEncoder, "_encode", waits)

    def feed() -> None:
        with open_sink(tmp_path / "out.mp4", spec_of(frames), encoders=2) as sink:
            for frame in frames:
                sink.write(frame, None)
                given.append(frame.index)

    thread = threading.Thread(target=feed)
    thread.start()
    limit = time.monotonic() + 30
    while len(given) < bound and time.monotonic() < limit:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(given) == bound
    gate.set()
    thread.join(30)
    assert len(decode(tmp_path / "out.mp4")) == 100


@pytest.mark.parametrize(
    ("preset", "processors", "expected"),
    [("ultrafast", 2, 1), ("ultrafast", 8, 1), ("ultrafast", 16, 4), ("medium", 4, 1), ("medium", 8, 4)],
)
def test_encoders_are_chosen_by_processors_and_preset(preset: str, processors: int, expected: int) -> None:
    assert automatic_encoders(preset, processors) == expected


def test_without_nvenc_a_gpu_gets_as_many_encoders_as_suit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvenc_sink, "available_cpus", lambda: 16)
    monkeypatch.setattr(nvenc_sink, "why_not", lambda *_: "no such encoder")
    given: Any = SimpleNamespace(gpu=None, contexts=[None])
    frames = make_frames(20)
    sink = nvenc_sink.open_nvenc_sink(tmp_path / "out.mp4", spec_of(frames), given, given, preset="ultrafast")
    assert "by 4 encoders at once: no NVENC for this video (no such encoder)" in sink.notes[0]
    with sink:
        for frame in frames:
            sink.write(frame, None)
        assert isinstance(sink._encoder, ParallelEncoder)
    assert len(decode(tmp_path / "out.mp4")) == 20


@pytest.mark.parametrize("encoders", [-1, 65])
def test_numbers_of_encoders_out_of_range_are_refused(tmp_path: Path, encoders: int) -> None:
    with pytest.raises(UsageError, match="give 1 to 64"):
        VideoSink(tmp_path / "out.mp4", spec_of(make_frames(1)), encoders=encoders)
    assert not list(tmp_path.iterdir())
