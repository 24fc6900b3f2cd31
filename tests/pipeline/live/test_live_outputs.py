"""Outputs of a live run: files that continue in a further part after a fault, and the queue between the threads."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest
from limits import file_size_limit
from live_camera import HEIGHT, WIDTH, TestCamera, number_in
from live_faults import CLASSES, Make

from cliprl.engines import CliprlError
from cliprl.pipeline import OutputSpec, Overlay, open_sink
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import BaseSink, Sink, StreamInfo
from cliprl.pipeline.core.queues import Backoff, BoundedQueue
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live import sink_thread
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.clock import StreamClock
from cliprl.pipeline.live.factory import LiveOptions, next_part, open_live
from cliprl.pipeline.live.sink_thread import SinkThread, ThreadedSink
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.sinks.registry import SINKS, find_sink
from cliprl.pipeline.stream.stream import Stream

LIMIT = 60.0  # seconds after which a test gives up
SPEC = OutputSpec(StreamInfo("camera", HEIGHT, WIDTH, Fraction(1, 25), Fraction(25), live=True), CLASSES)


def feed(output: SinkThread, until: Callable[[], bool]) -> int:
    """Put frames of a camera into an output, as fast as it takes them, until the condition holds; how many."""
    camera, clock, limit, given = TestCamera(live=False), StreamClock(), time.monotonic() + LIMIT, 0
    while not until():
        assert time.monotonic() < limit
        if len(output._queue) < 8 and (frame := camera.read()) is not None:
            clock.stamp_at(frame, time.monotonic(), 3600)
            output.put(frame, None)
            given += 1
        time.sleep(0.002)
    return given


def frames_in(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_wait_for_a_silent_receiver_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, said = threading.Event(), list[str]()

    class Silent(BaseSink):
        def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
            answered.wait()

        def close(self) -> None: ...

    def log(text: str) -> None:
        said.append(text)
        answered.set()

    monkeypatch.setattr(sink_thread, "_CLOSE_FAULTY", 0.0)
    with ThreadedSink(Silent, name="rtmp://viewer/live", log=log) as sink:
        sink.write(TestCamera(live=False).read(), None)
    assert said == ["waiting up to 20 s more for rtmp://viewer/live to answer"]
    assert sink.frames == 1


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_thread, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(sink_thread, "_RECOVERED_S", 0.2)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4", "out.jsonl"])
def test_file_output_continues_in_another_part_after_fault(name: str, tmp_path: Path) -> None:
    target = str(tmp_path / name)
    output = SinkThread(
        lambda: open_sink(target, SPEC), name=target, open_next=lambda: open_sink(next_part(target), SPEC)
    )
    output.start()
    given = feed(output, lambda: output.written > 10)
    with file_size_limit(2000):
        given += feed(output, lambda: output.error is not None)
        assert "trying again" in output.remark
    given += feed(output, lambda: output.error is None)
    assert output.remark == f"frames are missing in '{target}'"
    written = output.written
    given += feed(output, lambda: output.written > written + 10)
    output.close()
    assert output.failure is not None
    assert "can't write" in str(output.failure)
    assert not Path(target).exists(), "it is not whole"
    part = Path(next_part(target)).with_name(name.replace(".", ".part2."))
    assert part.exists()
    if not name.endswith(".jsonl"):
        assert frames_in(part) > 10
    assert output.written + output.dropped == given
    assert any("frames are missing" in note for note in output.notes)
    assert f"'{target}' continues in '{part}'" in output.notes
    leftovers = [path.name for path in tmp_path.iterdir() if "partial" in path.name]
    assert leftovers == [f".{Path(name).stem}.partial{Path(name).suffix}"], "that of the first part alone"


@pytest.mark.usefixtures("quick")
def test_run_with_output_fault_continues_and_fails_at_end(tmp_path: Path) -> None:
    opened: list[Path] = []

    def open_next() -> Sink:
        opened.append(Path(next_part(str(tmp_path / "out.mkv"))))
        return open_sink(opened[-1], SPEC)

    def open_none() -> Sink:
        raise CliprlError("no room")

    capture = LiveCapture(TestCamera, TestCamera(60), name="camera", reconnect=False)
    output = SinkThread(open_none, name="out.mkv", open_next=open_next)
    stream = LiveStream(capture, Overlay(CLASSES), outputs=(output,))
    with pytest.raises(CliprlError, match="no room"):
        stream.run()
    assert [path.name for path in opened] == ["out.part2.mkv"]
    assert frames_in(opened[0]) == output.written == stream.summary().frames
    assert stream.written == [output.written]


def test_a_further_part_has_a_name_that_nothing_bears(tmp_path: Path) -> None:
    (tmp_path / "a.part2.mkv").touch()
    (tmp_path / "m.part2").mkdir()
    (tmp_path / "n").mkdir()
    names = {"a.mkv": "a.part3.mkv", "A.MKV": "A.part2.MKV", "m/": "m.part3/", "n": "n.part2/"}
    for name, part in names.items():
        assert next_part(f"{tmp_path}/{name}") == f"{tmp_path}/{part}"


def test_further_part_is_of_the_same_kind(tmp_path: Path) -> None:
    suffixes = [suffix for kind in SINKS for suffix in kind.suffixes]
    assert {".cvat.xml", ".report.json", ".ids/"} <= set(suffixes)
    for suffix in suffixes:
        target = f"{tmp_path}/a.b{suffix}"
        assert next_part(target) == f"{tmp_path}/a.b.part2{suffix}"
        assert find_sink(next_part(target)) is find_sink(target)


def test_output_not_complete_in_time_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Stuck(BaseSink):
        def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
            released.wait(LIMIT)

        def close(self) -> None: ...

    monkeypatch.setattr(sink_thread, "_CLOSE_FAULTY", 0.1)
    monkeypatch.setattr(sink_thread, "_CLOSE_TIMEOUT", 0.2)
    output = SinkThread(Stuck, name="out.mkv")
    output.start()
    camera = TestCamera(live=False)
    for _ in range(3):
        frame = camera.read()
        assert frame is not None
        output.put(frame, None)
    until = time.monotonic() + LIMIT
    while len(output._queue) > 2 and time.monotonic() < until:
        time.sleep(0.01)
    output.close()
    released.set()
    assert output.dropped == 2
    assert "'out.mkv' was not complete" in str(output.failure)


def test_reader_of_a_pipe_gets_one_whole_stream(tmp_path: Path) -> None:
    pipe, got = tmp_path / "out.jsonl", list[str]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    overlay, source = Overlay(CLASSES), TestCamera(10)
    stream = open_live(
        "camera", source, overlay, Make(), {str(pipe): open_sink}, LiveOptions(reconnect=False), network="test"
    )
    stream.run()
    reader.join(LIMIT)
    assert len(got[0].splitlines()) == 1 + stream.written[0] > 1, "a header, and a line for each frame"


def test_full_queue_drops_oldest_or_refuses_new_item() -> None:
    newest: BoundedQueue[int] = BoundedQueue(2)
    oldest: BoundedQueue[int] = BoundedQueue(2, keep_oldest=True)
    for queue in (newest, oldest):
        for number in range(5):
            queue.put(number)
        assert queue.dropped == 3
    assert newest.clear() == [3, 4]
    assert oldest.clear() == [0, 1]
    oldest.put(7)
    oldest.close()
    assert [oldest.get(), oldest.get()] == [7, None]
    assert newest.get(0) is None


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 1.0)
    assert [backoff.next() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])
    assert backoff.next(60) == 2.0
    assert backoff.next() == 1.0
    backoff.reset()
    assert backoff.next() == 0.1


class Receiver(BaseSink):
    """A receiver that refuses while it is away, and takes a frame in `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.away, self.got = seconds, False, list[int]()

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        if self.away:
            raise CliprlError("can't stream to rtsp://viewer")
        time.sleep(self.seconds)
        self.got.append(number_in(frame.luma))

    def close(self) -> None:
        return


def test_slow_receiver_of_a_file_delays_and_spoils_nothing(tmp_path: Path) -> None:
    """The file beside the stream is complete, the stream has the newest frames, and all goes at the rate of the input."""
    slow, fast, target = Receiver(0.5), Receiver(), tmp_path / "out.mkv"
    camera = TestCamera(40, live=False)
    sinks = [ThreadedSink(lambda: slow, name="slow"), ThreadedSink(lambda: fast, name="fast"), open_sink(target, SPEC)]
    started = time.monotonic()
    summary = Stream(camera, sinks=sinks, realtime=True).run()
    assert time.monotonic() - started > 39 / 25
    assert frames_in(target) == summary.frames == 40
    assert slow.got == sorted(set(slow.got))
    assert len(slow.got) < 40
    assert set(slow.got) <= set(camera.given)
    assert fast.got[-1] == slow.got[-1] == camera.given[-1]


@pytest.mark.usefixtures("quick")
def test_faults_of_network_outputs_are_logged_once_and_their_end() -> None:
    told: list[str] = []
    viewer = Receiver()
    output = SinkThread(lambda: viewer, name="rtsp://viewer", network=True, log=told.append)
    viewer.away = True
    output.start()
    feed(output, lambda: output.error is not None)
    time.sleep(0.3)  # several attempts
    viewer.away = False
    feed(output, lambda: output.error is None)
    viewer.away = True
    feed(output, lambda: output.error is not None)
    output.close()
    assert told == ["can't stream to rtsp://viewer; trying again", "streaming to rtsp://viewer"]
    assert output.failure is None, "it has taken frames"


@pytest.mark.usefixtures("quick")
def test_network_output_that_never_took_a_frame_fails_the_run() -> None:
    viewer = Receiver()
    viewer.away = True
    capture = LiveCapture(TestCamera, TestCamera(20), name="camera", reconnect=False)
    live = LiveStream(capture, Overlay(CLASSES), outputs=(SinkThread(lambda: viewer, network=True),))
    stored = Stream(TestCamera(20, live=False), sinks=[ThreadedSink(lambda: viewer, name="rtsp://viewer")])
    for stream in (live, stored):
        with pytest.raises(CliprlError, match="can't stream to rtsp://viewer"):
            stream.run()


def test_a_network_output_with_a_fault_delays_no_end() -> None:
    tries, answered = list[int](), threading.Event()

    def open_sink() -> Receiver:
        tries.append(1)
        if len(tries) > 1:
            answered.wait(2 * LIMIT)
        raise CliprlError("no server")

    output = SinkThread(open_sink, name="rtmp://away", network=True)
    output.start()
    feed(output, lambda: len(tries) > 1)
    started = time.monotonic()
    output.close()
    took = time.monotonic() - started
    answered.set()
    output.join()
    assert took < sink_thread._CLOSE_TIMEOUT / 2
    assert str(output.failure) == "no server"


class FullDisk(BaseSink):
    """A file whose disk is full at its fifth frame."""

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        self.frames += 1
        if self.frames == 5:
            raise CliprlError("can't write out.mp4: no space")

    def close(self) -> None:
        pass


def test_an_absent_viewer_hides_no_fault_of_a_file() -> None:
    viewer = Receiver()
    viewer.away = True
    absent = ThreadedSink(lambda: viewer, name="rtsp://viewer")
    stream = Stream(TestCamera(20, live=False), sinks=[absent, FullDisk()])
    with pytest.raises(CliprlError, match="no space"), stream:
        stream.run()
    absent.close()
    capture = LiveCapture(TestCamera, TestCamera(20), name="camera", reconnect=False)
    outputs = (SinkThread(lambda: viewer, network=True), SinkThread(FullDisk))
    with pytest.raises(CliprlError, match="no space"):
        LiveStream(capture, Overlay(CLASSES), outputs=outputs).run()


def test_a_stop_ends_the_wait_for_the_next_frame() -> None:
    camera = TestCamera(3, live=False)
    stream = Stream(camera, sinks=[Receiver()], realtime=True)
    camera.info = replace(camera.info, time_base=Fraction(3600))
    threading.Timer(0.3, stream.stop).start()
    started = time.monotonic()
    assert stream.run().interrupted
    assert time.monotonic() - started < LIMIT
