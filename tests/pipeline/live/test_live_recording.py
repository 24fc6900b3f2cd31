"""Recordings: every frame, in segments, pixelated outside the body, and playable after a kill at any moment."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy as np
import pytest
from limits import file_size_limit
from live_camera import HEIGHT, WIDTH, TestCamera, number_in
from live_faults import CLASSES
from prometheus_text import metric_samples

from cliprl.engines import CliprlError, UsageError
from cliprl.pipeline import Frame, Overlay, Segmentation, StreamInfo
from cliprl.pipeline.core.interfaces import BaseSink
from cliprl.pipeline.core.thread_policy import FILE_NICENESS
from cliprl.pipeline.live.broadcast import DisplayedFrame, RecordState, Status
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display_loop import DisplayPolicy
from cliprl.pipeline.live.recording import recorder as recorder_module
from cliprl.pipeline.live.recording import segments as segments_module
from cliprl.pipeline.live.recording.recorder import QUEUED_FRAMES, Recording, RecordOptions, recordings
from cliprl.pipeline.live.recording.segments import SegmentWriter
from cliprl.pipeline.live.segmentation import worker as worker_module
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.sinks.video.encoder import VideoEncoder
from cliprl.pipeline.web.metrics import exposition, latency_histogram
from cliprl.pipeline.web.status_json import ProgramInfo

LIMIT = 60.0  # seconds after which a test gives up

INFO = StreamInfo("camera", HEIGHT, WIDTH, Fraction(1, 25), Fraction(25), live=True)


def record(
    source: TestCamera, folder: Path, what: str = "both", *, guard: bool = False, minutes: float = 5.0
) -> tuple[Recording, ...]:
    camera = LiveCapture(TestCamera, source, name="camera", reconnect=False)
    made = recordings(RecordOptions(folder, what, minutes), lambda: camera.info)
    controls = Controls(CLASSES, Settings(recording=True))
    stream = LiveStream(camera, Overlay(CLASSES), recordings=made, controls=controls, policy=DisplayPolicy(guard=guard))
    stream.run()
    return made


def numbers(path: Path) -> list[int]:
    """The frame numbers in a file, as far as it can be decoded."""
    found = []
    with av.open(str(path)) as container:
        try:
            for image in container.decode(video=0):
                found.append(number_in(image.to_ndarray(format="gray")))
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
        images = [p.to_ndarray(format="gray") for p in container.decode(video=0)]
    assert len(images) == 10
    for luma in images:
        assert np.abs(np.diff(luma.astype(int), axis=1)).mean() < 1.0


def test_recording_is_switched_while_the_stream_runs(tmp_path: Path) -> None:
    (recording,) = recordings(RecordOptions(tmp_path, "raw"), lambda: INFO)
    recording.start()
    assert recording.state is RecordState.OFF
    recording.switch(True)
    assert recording.state is RecordState.STARTING, "nothing is on the disk"
    recording.switch(False)
    assert recording.state is RecordState.OFF
    recording.close()
    assert recording.paths == ()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
def test_display_comes_before_files_in_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[int]] = {}

    def note(name: str) -> None:
        seen.setdefault(name, set()).add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    class Noted(BaseSink):
        def __init__(self, name: str) -> None:
            self._name = name

        def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
            note(self._name)

        def close(self) -> None:
            pass

    write = SegmentWriter.write
    monkeypatch.setattr(SegmentWriter, "write", lambda self, frame: (note("recording"), write(self, frame)))
    camera = LiveCapture(lambda: TestCamera(5), TestCamera(5), name="camera", reconnect=False)
    outputs = [SinkThread(lambda: Noted("file")), SinkThread(lambda: Noted("network"), network=True)]
    made = recordings(RecordOptions(tmp_path, "overlay"), lambda: camera.info)
    controls = Controls(CLASSES, Settings(recording=True))
    LiveStream(camera, Overlay(CLASSES), outputs=outputs, recordings=made, controls=controls).run(
        lambda *_: note("display")
    )
    (own,) = seen["display"]
    assert seen["network"] == {own}
    assert seen["file"] == seen["recording"] == {own + FILE_NICENESS}
    assert FILE_NICENESS < worker_module._NICENESS  # the segmenter's process


@pytest.mark.parametrize("kills", [int(os.environ.get("CLIPRL_KILLS", "2"))])
def test_a_kill_takes_no_more_than_the_last_two_seconds(kills: int, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "helpers" / "live_record.py"
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
    with file_size_limit(300), pytest.raises(CliprlError, match="can't record in"):
        record(source, tmp_path, "raw")
    assert source.given == list(range(100))
    assert list(tmp_path.iterdir()) == [], "no files without a frame"


class Feeder:
    """Gives a recording numbered frames, 25 a second by their own times, and waits for what becomes of them."""

    def __init__(self, folder: Path) -> None:
        (self.recording,) = recordings(RecordOptions(folder, "raw"), lambda: INFO)
        self.folder, self.given = folder, 0
        self._camera = TestCamera(live=False)

    def give(self) -> None:
        frame = self._camera.read()
        assert frame is not None
        frame.pts, frame.time_base, frame.duration = self.given * 3600, TIME_BASE, 3600
        self.recording.put(DisplayedFrame(self.given, frame, frame, frame, frame, Status()))
        self.given += 1

    def give_until(self, state: RecordState) -> None:
        """Give frames, as fast as they are taken, until the recording is in this state."""
        until = time.monotonic() + LIMIT
        while self.recording.state is not state:
            assert time.monotonic() < until, (self.recording.status, state)
            if len(self.recording._queue) < 8:
                self.give()
            time.sleep(0.002)

    def drain(self) -> None:
        until = time.monotonic() + LIMIT
        while self.recording._queue:
            assert time.monotonic() < until
            time.sleep(0.002)

    def __enter__(self) -> Feeder:
        self.recording.start()
        self.recording.switch(True)
        return self

    def __exit__(self, *_: object) -> None:
        self.recording.close()


@contextmanager
def no_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with file_size_limit(300):
        yield


@contextmanager
def no_handle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with monkeypatch.context() as planted:  # a segment ends now, not in five minutes
            planted.setattr(SegmentWriter, "_is_over", lambda *_: True)
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def folder_gone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    away = folder.with_name("away")
    folder.rename(away)
    folder.touch()  # so that it can't be made anew
    yield
    folder.unlink()
    away.rename(folder)


@contextmanager
def folder_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shutil.rmtree(folder)
    yield


@contextmanager
def not_mounted(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with folder_removed(folder, monkeypatch), monkeypatch.context() as planted:
        planted.setattr(segments_module.os.path, "ismount", lambda path: False)
        yield


@contextmanager
def encoder_breaks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def encode(*_: object) -> object:
        raise av.error.ExternalError(1, "planted")

    with monkeypatch.context() as planted:
        planted.setattr(VideoEncoder, "encode", encode)
        yield


@pytest.mark.parametrize("fault", [no_room, no_handle, folder_gone, folder_removed, not_mounted, encoder_breaks])
def test_recording_continues_after_fault_and_counts_lost_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path, pytest.MonkeyPatch], Any]
) -> None:
    with Feeder(tmp_path / "rec") as feeder:
        recording = feeder.recording
        feeder.give_until(RecordState.RECORDING)
        with fault(feeder.folder, monkeypatch):
            feeder.give_until(RecordState.FAILED)
            assert recording.error is not None
            assert "can't record in" in str(recording.error)
            before = recording.missed
            for _ in range(2 * QUEUED_FRAMES):
                feeder.give()
            assert recording.missed >= before + QUEUED_FRAMES, "counted while it fails"
        feeder.give_until(RecordState.RECORDING)
        feeder.drain()
        feeder.give()
        assert recording.error is None
        assert recording.faults > 0
    found = [n for path in sorted(feeder.folder.iterdir()) for n in numbers(path)]
    assert found == sorted(set(found))
    assert len(found) == recording.frames
    assert recording.frames + recording.missed == feeder.given
    assert found[-1] == feeder.given - 1
    assert f"{recording.missed} frames are missing in the raw recording" in recording.notes[0]
    assert str(feeder.folder) in recording.notes[0], "and why"


def test_a_short_fault_costs_no_more_than_half_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Feeder(tmp_path / "rec") as feeder:
        feeder.give_until(RecordState.RECORDING)
        with no_room(feeder.folder, monkeypatch):
            feeder.give_until(RecordState.FAILED)
        feeder.give_until(RecordState.RECORDING)
    assert 0 < feeder.recording.missed <= 13
    assert len(feeder.recording.paths) == 2


def test_unencodable_frame_does_not_block_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = VideoEncoder.encode

    def pick(encoder: VideoEncoder, frame: Frame) -> Any:
        if frame.pts == 5 * 3600:
            raise RuntimeError("planted")
        return encode(encoder, frame)

    monkeypatch.setattr(VideoEncoder, "encode", pick)
    with Feeder(tmp_path / "rec") as feeder:
        feeder.give_until(RecordState.FAILED)
        feeder.give_until(RecordState.RECORDING)
    assert feeder.recording.missed == 6, "it, and the five in its fragment"
    assert len(numbers(feeder.recording.paths[0])) == feeder.given - 6


def test_a_recording_switched_off_while_it_fails_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Feeder(tmp_path / "rec") as feeder, no_room(tmp_path, monkeypatch):
        feeder.give_until(RecordState.FAILED)
        feeder.recording.switch(False)
        assert feeder.recording.state is RecordState.OFF
        feeder.recording.close()
    assert feeder.recording.missed == feeder.given
    assert feeder.recording.error is not None


def test_failing_recording_shows_in_status_metrics_and_terminal(tmp_path: Path) -> None:
    camera = LiveCapture(TestCamera, TestCamera(rate=50), name="camera", reconnect=False)
    (raw,) = recordings(RecordOptions(tmp_path, "raw"), lambda: camera.info)
    controls, said = Controls(CLASSES, Settings(recording=True)), []
    stream = LiveStream(
        camera,
        Overlay(CLASSES),
        recordings=(raw,),
        controls=controls,
        policy=DisplayPolicy(guard=False),
        log=said.append,
    )
    program = ProgramInfo(stream.broadcast, controls, INFO, CLASSES, True)

    def until(state: RecordState) -> dict[str, Any]:
        limit = time.monotonic() + LIMIT
        while (told := program.status_json(1))["record_state"] != state:
            assert time.monotonic() < limit
            time.sleep(0.01)
        return told

    thread = threading.Thread(target=stream.run)
    thread.start()
    try:
        until(RecordState.RECORDING)
        with file_size_limit(300):
            told = until(RecordState.FAILED)
            assert "the raw recording has failed: can't record in" in told["note"]
            assert not told["recording"]
        told = until(RecordState.RECORDING)
        assert told["missed"] > 0
        assert told["note"] == "frames are missing in the raw recording"
        samples = metric_samples(exposition(stream.broadcast, program.status(), latency_histogram(), (), 1))
        assert samples['cliprl_recording_frames_missed_total{kind="raw"}'] > 0
        assert samples['cliprl_recording_faults_total{kind="raw"}'] > 0
        assert samples['cliprl_recording_state{state="recording"}'] == 1
    finally:
        stream.stop()
        thread.join()
    assert program.status_json(1)["record_state"] == "off"
    assert "trying again" in said[0]
    assert said[1] == "frames are missing in the raw recording"


def test_failing_file_output_counts_and_reports_missing_frames(tmp_path: Path) -> None:
    def open_none() -> NoReturn:
        raise CliprlError("no room")

    output = SinkThread(open_none, name="out.mp4")
    frame = TestCamera(live=False).read()
    assert frame is not None
    output.put(frame, None)
    output.start()
    output.join(LIMIT)
    output.put(frame, None)
    output.close()
    assert output.remark == "no room"
    assert output.dropped == 2
    assert "2 frames are missing in 'out.mp4'" in output.notes[-1]


def test_recording_not_complete_in_time_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs must not end as a run that has recorded all."""
    hangs, released = threading.Event(), threading.Event()

    def write(self: SegmentWriter, frame: Frame) -> None:
        hangs.set()
        released.wait(LIMIT)

    monkeypatch.setattr(SegmentWriter, "write", write)
    monkeypatch.setattr(recorder_module, "_CLOSE_TIMEOUT", 0.1)
    (recording,) = recordings(RecordOptions(tmp_path, "raw"), lambda: INFO)
    recording.start()
    recording.switch(True)
    camera = TestCamera(live=False)
    for _ in range(3):
        frame = camera.read()
        assert frame is not None
        recording.add(frame)
    assert hangs.wait(LIMIT)
    recording.close()
    assert recording.missed == 3
    assert f"the raw recording in '{tmp_path}' was not complete" in str(recording.failure)
    released.set()


def test_unwritable_place_is_reported_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't record in"):
        recordings(RecordOptions(tmp_path / "file" / "x"), lambda: INFO)


def test_a_new_size_begins_a_new_file(tmp_path: Path) -> None:
    segments = SegmentWriter(tmp_path, "raw", INFO, minutes=5, crf=23, preset="ultrafast")
    for n, size in enumerate([(64, 96), (64, 96), (96, 64)]):
        luma, chroma = np.full(size, 99, np.uint8), np.full((size[0] // 2, size[1] // 2, 2), 128, np.uint8)
        segments.write(Frame(luma, chroma, n * 3600, TIME_BASE, n))
    segments.finish()
    with av.open(str(segments.paths[0])) as first, av.open(str(segments.paths[1])) as second:
        assert [len(list(c.decode(video=0))) for c in (first, second)] == [2, 1]


def test_late_worker_thread_misses_frames_and_reports_it(tmp_path: Path) -> None:
    (raw,) = recordings(RecordOptions(tmp_path, "raw"), lambda: INFO)  # its thread is never started
    raw.switch(True)
    camera = TestCamera(70, rate=5000)
    stream = LiveStream(LiveCapture(TestCamera, camera, name="camera", reconnect=False), Overlay(CLASSES))
    published = []
    publish = stream.broadcast.publish
    stream.broadcast.publish = lambda shown, *, freeze=False: (published.append(shown), publish(shown))[0]  # type: ignore[method-assign]
    stream.run()
    for shown in published[:1] * 100:
        raw.put(shown)
    assert raw.missed == 100 - 64
    assert "36 frames are missing" in raw.notes[0]
