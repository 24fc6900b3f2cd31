"""Recordings: every frame, in segments, pixelated outside the body, and playable after a kill at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from limits import file_size_limit
from live_camera import HEIGHT, WIDTH, TestCamera, number_in
from live_faults import CLASSES

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline import Frame, Overlay, StreamInfo
from cliprl.pipeline.live.camera import Camera
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display import Promise
from cliprl.pipeline.live.recording import Recording, RecordOptions, recordings
from cliprl.pipeline.live.segments import Segments
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.live.timeline import TIME_BASE

INFO = StreamInfo("camera", HEIGHT, WIDTH, Fraction(1, 25), Fraction(25), live=True)


def record(
    source: TestCamera, folder: Path, what: str = "both", *, guard: bool = False, minutes: float = 5.0
) -> tuple[Recording, ...]:
    camera = Camera(TestCamera, source, name="camera", reconnect=False)
    made = recordings(RecordOptions(folder, what, minutes), lambda: camera.info)
    controls = Controls(CLASSES, Settings(recording=True))
    stream = LiveStream(camera, Overlay(CLASSES), recordings=made, controls=controls, promise=Promise(guard=guard))
    stream.run()
    return made


def numbers(path: Path) -> list[int]:
    """The frame numbers in a file, as far as it can be decoded."""
    found = []
    with av.open(str(path)) as container:
        try:
            for picture in container.decode(video=0):
                found.append(number_in(picture.to_ndarray(format="gray")))
        except av.FFmpegError:
            pass
    return found


def test_every_frame_is_in_the_segments_of_both_kinds(tmp_path: Path) -> None:
    source = TestCamera(75, rate=50, live=False)  # it waits where the machine is busy
    made = record(source, tmp_path / "new" / "folder", minutes=0.5 / 60)
    for recording in made:
        assert len(recording.paths) >= 3
        assert [n for path in recording.paths for n in numbers(path)] == list(range(75))
        assert recording.missed == 0
    assert {p.name.rsplit("_", 1)[1] for p in (tmp_path / "new" / "folder").iterdir()} == {"raw.mp4", "overlay.mp4"}


def test_out_of_the_body_nothing_recognisable_is_recorded(tmp_path: Path) -> None:
    (raw,) = record(TestCamera(10, live=False), tmp_path, "raw", guard=True)  # grey all over: not the inside of a body
    with av.open(str(raw.paths[0])) as container:
        pictures = [p.to_ndarray(format="gray") for p in container.decode(video=0)]
    assert len(pictures) == 10
    for luma in pictures:
        assert np.abs(np.diff(luma.astype(int), axis=1)).mean() < 1.0


def test_recording_is_switched_while_the_stream_runs(tmp_path: Path) -> None:
    (recording,) = recordings(RecordOptions(tmp_path, "raw"), lambda: INFO)
    recording.start()
    recording.switch(False)
    assert not recording.recording
    recording.switch(True)
    assert recording.recording
    recording.close()
    assert recording.paths == ()


@pytest.mark.parametrize("kills", [int(os.environ.get("CLIPRL_KILLS", "2"))])
def test_a_kill_takes_no_more_than_the_last_two_seconds(kills: int, tmp_path: Path) -> None:
    script = Path(__file__).with_name("live_record.py")
    for kill in range(kills):
        folder = tmp_path / str(kill)
        recorder = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
        assert recorder.stdout is not None
        given = -1
        enough = random.uniform(80, 140)
        while given < enough:
            given = int(recorder.stdout.readline())
        os.kill(recorder.pid, signal.SIGKILL)
        recorder.wait()
        given = max([given, *(int(line) for line in recorder.stdout.read().split())])
        for kind in ("raw", "overlay"):
            found = [n for path in sorted(folder.glob(f"*_{kind}.mp4")) for n in numbers(path)]
            print(kind, "lost", given + 1 - len(found), "of", given + 1)
            assert found == list(range(len(found)))
            assert given - found[-1] <= 50, "frames, of 25 a second"


def test_a_full_disk_ends_the_recording_and_not_the_picture(tmp_path: Path) -> None:
    source = TestCamera(100, rate=100, live=False)
    with file_size_limit(20_000), pytest.raises(CliprlError, match="can't record in"):
        record(source, tmp_path, "raw")
    assert source.given == list(range(100))
    assert numbers(next(tmp_path.iterdir()))[:2] == [0, 1]


def test_a_place_that_can_not_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't record in"):
        recordings(RecordOptions(tmp_path / "file" / "x"), lambda: INFO)


def test_a_new_size_begins_a_new_file(tmp_path: Path) -> None:
    segments = Segments(tmp_path, "raw", INFO, minutes=5, crf=23, preset="ultrafast")
    for n, size in enumerate([(64, 96), (64, 96), (96, 64)]):
        luma, chroma = np.full(size, 99, np.uint8), np.full((size[0] // 2, size[1] // 2, 2), 128, np.uint8)
        segments.write(Frame(luma, chroma, n * 3600, TIME_BASE, n))
    segments.finish()
    with av.open(str(segments.paths[0])) as first, av.open(str(segments.paths[1])) as second:
        assert [len(list(c.decode(video=0))) for c in (first, second)] == [2, 1]


def test_a_worker_thread_that_is_late_misses_frames_and_says_so(tmp_path: Path) -> None:
    (raw,) = recordings(RecordOptions(tmp_path, "raw"), lambda: INFO)  # its thread is never started
    raw.switch(True)
    camera = TestCamera(70, rate=5000)
    stream = LiveStream(Camera(TestCamera, camera, name="camera", reconnect=False), Overlay(CLASSES))
    published = []
    publish = stream.hub.publish
    stream.hub.publish = lambda shown, *, freeze=False: (published.append(shown), publish(shown))[0]  # type: ignore[method-assign]
    stream.run()
    for shown in published[:1] * 100:
        raw.put(shown)
    assert raw.missed == 100 - 64
    assert "36 pictures are missing" in raw.notes[0]
