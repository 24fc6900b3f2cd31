"""One encoder for a network output and the recording of displayed frames: both complete, and neither in the other's way."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from limits import file_size_limit
from live_camera import HEIGHT, WIDTH, TestCamera, number_in
from live_faults import CLASSES
from numpy.typing import NDArray
from waiting import until

from cliprl.engines import CliprlError
from cliprl.pipeline import Frame, OutputSpec, Overlay, Segmentation, StreamInfo, open_sink
from cliprl.pipeline.core.interfaces import BaseSink, Sink
from cliprl.pipeline.live import sink_thread
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.clock import TIME_BASE
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display_loop import DisplayPolicy
from cliprl.pipeline.live.recording import shared_encoder as shared_module
from cliprl.pipeline.live.recording.recorder import Recording, RecordOptions, recordings
from cliprl.pipeline.live.recording.shared_encoder import SharedEncoder, shared_encoder
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.sinks.video import live_encoding
from cliprl.pipeline.sinks.video.live_encoding import LiveEncoding, Quality
from cliprl.pipeline.view.privacy_guard import pixelated

QUALITY, RATE = Quality(23, "ultrafast"), 50
INFO = StreamInfo("camera", HEIGHT, WIDTH, TIME_BASE, Fraction(RATE), live=True)
Images = dict[int, NDArray[np.uint8]]


def images_in(*paths: Path) -> Images:
    """The decoded frames of files by their number; each file begins with a key frame."""
    found: Images = {}
    for path in paths:
        with av.open(str(path)) as container:
            for count, image in enumerate(container.decode(video=0)):
                assert count or image.key_frame
                luma = image.to_ndarray(format="gray")
                found[number_in(luma)] = luma
    return found


def same(a: Images, b: Images) -> int:
    """How many frames both have; these are equal."""
    both = a.keys() & b.keys()
    for number in both:
        np.testing.assert_array_equal(a[number], b[number])
    return len(both)


class Viewer(BaseSink):
    """A receiver of H.264 as it comes, which decodes it. It waits while `stalled`, and refuses while `away`.

    On a busy machine it may lose frames at any time: `gaps` are the numbers after which some are missing, `keys` key frames.
    """

    def __init__(self) -> None:
        self.images: Images = {}
        self.stalled, self.away = threading.Event(), False
        self.connections, self.sizes, self.keys = 0, set[tuple[int, ...]](), set[int]()
        self._encoder: Any = None

    @property
    def newest(self) -> int:
        return max(self.images, default=-1)

    @property
    def gaps(self) -> set[int]:
        return {number for number in range(self.newest) if number in self.images and number + 1 not in self.images}

    def check(self, recorded: Images) -> None:
        """What was received is as it was recorded, and goes on with a key frame after a gap."""
        assert same(recorded, self.images) == len(self.images) > 0
        assert {min(number for number in self.images if number > gap) for gap in self.gaps} <= self.keys

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        while self.stalled.is_set():
            time.sleep(0.001)
        if self.away:
            self._encoder = None
            raise CliprlError("the viewer is away")
        if self._encoder is None:
            container: Any = av.open(io.BytesIO(), "w", format="h264")
            self._encoder = LiveEncoding().open(container, frame, INFO, **QUALITY._asdict(), key_seconds=1.0)
            self._encoder.repeat_headers()
            self._decoder: Any = av.CodecContext.create("h264", "r")
            self.connections += 1
        for packet in self._encoder.encode(frame):
            for image in self._decoder.decode(av.Packet(bytes(packet))):
                luma = image.to_ndarray(format="gray")
                number = number_in(luma)
                self.images[number] = luma
                self.sizes.add(luma.shape)
                if image.key_frame:
                    self.keys.add(number)

    def close(self) -> None:
        return


class Run:
    """Frames by number through a shared encoder to outputs and a recording, without a display."""

    def __init__(self, folder: Path, *outputs: SinkThread, minutes: float = 5.0) -> None:
        (self.recording,) = recordings(RecordOptions(folder, "overlay", minutes), lambda: INFO)
        made = shared_encoder(outputs, (self.recording,), lambda: INFO)
        assert made is not None
        self.encoder: SharedEncoder = made
        self._threads: list[SharedEncoder | SinkThread | Recording] = [made, *outputs, self.recording]
        self._camera, self.given = TestCamera(live=False), 0

    def give(
        self,
        frames: int,
        *,
        record: bool = True,
        pause: float = 0.0,
        height: int = HEIGHT,
        rotation: int = 0,
        waits: bool = True,
    ) -> None:
        """Give frames, one every `pause` seconds, or as fast as the encoder takes them, for which it `waits`."""
        for _ in range(frames):
            frame = self._camera.read()
            assert frame is not None
            frame.luma, frame.chroma = frame.luma[:height], frame.chroma[: height // 2]
            frame.pts, frame.time_base, frame.duration = self.given * 90_000 // RATE, TIME_BASE, 90_000 // RATE
            frame.rotation = rotation
            self.given += 1
            until(lambda: not waits or len(self.encoder._queue) < 2)
            self.encoder.put(frame, None, is_recorded=record)
            time.sleep(pause)

    @property
    def recorded(self) -> Images:
        return images_in(*self.recording.paths)

    def __enter__(self) -> Run:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.close()


def output_to(sink: Sink) -> SinkThread:
    return SinkThread(lambda: sink, network=True, quality=QUALITY)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Quality]:
    """The qualities of the encoders that are opened."""
    found: list[Quality] = []
    original = live_encoding.live_encoder

    def note(container: Any, first: Frame, info: StreamInfo, crf: float, preset: str, key_seconds: float) -> Any:
        found.append(Quality(crf, preset))
        return original(container, first, info, crf, preset, key_seconds)

    monkeypatch.setattr(live_encoding, "live_encoder", note)
    monkeypatch.setattr(shared_module, "live_encoder", note)
    return found


@contextmanager
def udp_receiver(path: Path) -> Iterator[str]:
    """What arrives at the address is in the file at the end, without the beginning: a viewer who comes late."""
    with socket.socket(type=socket.SOCK_DGRAM) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.2)
        ended = threading.Event()

        def receive() -> None:
            with path.open("wb") as file:
                late = 50_000
                while True:
                    try:
                        while late > 0:
                            late -= len(receiver.recv(65536))
                        file.write(receiver.recv(65536))
                    except TimeoutError:
                        if ended.is_set():
                            return

        thread = threading.Thread(target=receive)
        thread.start()
        try:
            yield f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        finally:
            ended.set()
            thread.join()


def live_run(
    source: TestCamera,
    target: str,
    folder: Path,
    crf: float = 23,
    enough: Callable[[], bool] = lambda: False,
    guard: bool = False,
) -> tuple[Recording, int]:
    """A whole live stream with a network output and a recording of displayed frames, until it is enough.

    Returns the recording, and how many frames the display did not take in time, on a busy machine.
    """
    capture = LiveCapture(TestCamera, source, name="camera", reconnect=False)
    spec = OutputSpec(source.info, CLASSES)
    quality = Quality(crf, "ultrafast")
    output = SinkThread(lambda: open_sink(target, spec, crf=crf), network=True, quality=quality)
    (made,) = recordings(RecordOptions(folder, "overlay"), lambda: capture.info)
    controls = Controls(CLASSES, Settings(recording=True))
    policy = DisplayPolicy(guard=guard)
    stream = LiveStream(
        capture, Overlay(CLASSES), outputs=(output,), recordings=(made,), controls=controls, policy=policy
    )
    stream.run(lambda *_: stream.stop() if enough() else None)
    return made, capture.dropped


def test_network_output_and_recording_share_one_encoder(tmp_path: Path, opened: list[Quality]) -> None:
    source, received = TestCamera(rate=RATE), tmp_path / "received.ts"
    with udp_receiver(received) as url:
        made, dropped = live_run(source, url, tmp_path / "rec", enough=lambda: received.stat().st_size > 150_000)
    recorded = images_in(*made.paths)
    given = [number for number in source.given if number <= max(recorded)]
    assert list(recorded) == [number for number in given if number in recorded]
    assert len(given) - len(recorded) <= dropped
    assert made.missed == 0
    assert same(recorded, images_in(received)) > 20
    assert opened == [QUALITY]


def test_frames_outside_the_body_are_shared_pixelated(tmp_path: Path, opened: list[Quality]) -> None:
    made, _ = live_run(TestCamera(60, live=False), str(tmp_path / "live.m3u8"), tmp_path / "rec", guard=True)
    assert opened == [QUALITY]
    for files in (made.paths, sorted(tmp_path.glob("*.ts"))):
        images = images_in(*files).values()
        assert images
        for luma in images:
            middle = luma[80:-80]  # whole blocks, without status line and legend
            chroma = np.full((len(middle) // 2, WIDTH // 2, 2), 128, np.uint8)
            blocks = pixelated(Frame(middle, chroma, 0, TIME_BASE, 0)).luma
            assert np.abs(blocks.astype(int) - middle).mean() < 3


def test_frames_that_wait_at_the_end_are_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = live_encoding.VideoEncoder.encode

    def linger(encoder: Any, frame: Frame) -> Any:
        time.sleep(0.04)
        return encode(encoder, frame)

    monkeypatch.setattr(live_encoding.VideoEncoder, "encode", linger)
    source = TestCamera(20, rate=RATE)
    made, _ = live_run(source, str(tmp_path / "live.m3u8"), tmp_path / "rec")
    assert max(images_in(*made.paths)) == source.given[-1]


def test_other_quality_has_its_own_encoder(tmp_path: Path, opened: list[Quality]) -> None:
    made, _ = live_run(TestCamera(20, live=False), str(tmp_path / "live.m3u8"), tmp_path / "rec", crf=30)
    assert list(images_in(*made.paths)) == list(range(20))
    assert sorted(opened) == [QUALITY, (30, "ultrafast")]


def test_playlist_and_recording_hold_the_same_pictures(tmp_path: Path, opened: list[Quality]) -> None:
    made, _ = live_run(TestCamera(60, live=False), str(tmp_path / "live.m3u8"), tmp_path / "rec")
    with av.open(str(made.paths[0])) as file:
        times = [packet.pts * packet.time_base for packet in file.demux(video=0) if packet.size]
    assert times[0] == 0
    assert times == sorted(set(times))
    assert same(images_in(*made.paths), images_in(*sorted(tmp_path.glob("*.ts"))[:1])) > 20
    assert opened == [QUALITY]


def test_recording_switched_on_midway_has_exactly_its_frames(tmp_path: Path, opened: list[Quality]) -> None:
    viewer = Viewer()
    with Run(tmp_path, output_to(viewer)) as run:
        for frames, record in ((17, False), (23, True), (9, False), (11, True)):
            run.give(frames, record=record)
    assert list(run.recorded) == [*range(17, 40), *range(49, 60)]
    assert len(run.recording.paths) == 2
    assert same(run.recorded, viewer.images) > 0
    assert run.recording.missed == 0
    assert opened == [QUALITY]


@pytest.fixture
def goes_on(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """The event for which every encoder waits."""
    encode, event = live_encoding.VideoEncoder.encode, threading.Event()

    def wait(encoder: Any, frame: Frame) -> Any:
        event.wait()
        return encode(encoder, frame)

    monkeypatch.setattr(live_encoding.VideoEncoder, "encode", wait)
    return event


def test_frames_waiting_at_switch_off_are_recorded_or_missed(tmp_path: Path, goes_on: threading.Event) -> None:
    with Run(tmp_path, output_to(Viewer())) as run:
        for record in (True, False):
            run.give(8, pause=0.02, record=record, waits=False)
        goes_on.set()
    assert len(run.recorded) + run.recording.missed == 8


def test_rotation_that_ends_costs_no_recorded_frame(tmp_path: Path) -> None:
    with Run(tmp_path, output_to(Viewer())) as run:
        for rotation in (0, 180, 0):
            run.give(9, rotation=rotation)
    assert list(run.recorded) == list(range(27))
    assert run.recording.faults == run.recording.missed == 0


def test_shared_packets_fill_segments_without_a_gap(tmp_path: Path) -> None:
    with Run(tmp_path, output_to(Viewer()), minutes=0.7 / 60) as run:
        run.give(120)
    assert list(run.recorded) == list(range(120))
    lengths = [len(images_in(path)) for path in run.recording.paths]
    # A file is 35 frames long and ends at the next key frame, which a viewer that lost frames gets before its time.
    assert sum(lengths) == 120
    assert all(35 <= length <= 60 for length in lengths[:-1])
    assert len(lengths) >= 2


def test_slow_viewer_goes_on_at_a_key_frame(tmp_path: Path, opened: list[Quality]) -> None:
    viewer = Viewer()
    with Run(tmp_path, output_to(viewer)) as run:
        run.give(10)
        until(lambda: viewer.images)
        viewer.stalled.set()
        run.give(30, pause=0.01)
        until(lambda: run.recording.frames == 40)  # while the viewer is stalled
        viewer.stalled.clear()
        until(lambda: (run.give(1, pause=0.01), viewer.newest > 60)[1])
    assert list(run.recorded) == list(range(run.given))
    assert viewer.gaps
    viewer.check(run.recorded)
    assert opened == [QUALITY]


def test_viewer_goes_on_soon_after_a_stall(tmp_path: Path) -> None:
    viewer = Viewer()
    output = output_to(viewer)
    with Run(tmp_path, output) as run:
        run.give(30, record=False)
        viewer.stalled.set()
        run.give(15, record=False, pause=0.02)
        viewer.stalled.clear()
        until(lambda: output.needs_key)
        stalled = run.given
        until(lambda: (len(output._queue) or run.give(1, record=False, pause=0.02), viewer.newest >= stalled)[1])
    assert min(number for number in viewer.images if number >= stalled) - stalled <= 0.25 * RATE


def test_short_lack_of_time_costs_no_recorded_frame(tmp_path: Path, goes_on: threading.Event) -> None:
    with Run(tmp_path, output_to(Viewer())) as run:
        begin = time.monotonic()
        while time.monotonic() < begin + 0.6:
            run.give(1, pause=0.02, waits=False)
        goes_on.set()
    assert list(run.recorded) == list(range(run.given))


def test_viewer_that_returns_starts_with_a_key_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Quality]
) -> None:
    monkeypatch.setattr(sink_thread, "_FIRST_PAUSE", 0.1)
    viewer = Viewer()
    viewer.away = True
    output = output_to(viewer)
    with Run(tmp_path, output) as run:
        run.give(7)
        until(lambda: output.error is not None)
        viewer.away = False
        until(lambda: (run.give(1, pause=0.01), len(viewer.images) > 5)[1])
        viewer.away = True
        until(lambda: (run.give(1, pause=0.01), output.error is not None)[1])
        viewer.away = False
        until(lambda: (run.give(1, pause=0.01), viewer.connections == 2 and output.error is None)[1])
        until(lambda: (run.give(1, pause=0.01), viewer.newest > run.given - 5)[1])
    assert list(run.recorded) == list(range(run.given))
    viewer.check(run.recorded)
    assert opened == [QUALITY]


def full_disk(folder: Path) -> Any:
    return file_size_limit(300)


@contextmanager
def removed_folder(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder)
    yield


@pytest.mark.parametrize("fault", [full_disk, removed_folder])
def test_disk_fault_does_not_reach_the_network(
    tmp_path: Path, fault: Callable[[Path], Any], opened: list[Quality]
) -> None:
    viewer = Viewer()
    with Run(tmp_path / "rec", output_to(viewer)) as run:
        until(lambda: (run.give(1, pause=0.01), run.recording.state == "recording")[1])
        with fault(tmp_path / "rec"):
            until(lambda: (run.give(1, pause=0.01), run.recording.faults)[1])
            faulty = run.given
            until(lambda: (run.give(1, pause=0.01), viewer.newest > faulty)[1])
        until(lambda: (run.give(1, pause=0.01), run.recording.state == "recording")[1])
    assert run.recording.missed > 0
    found = images_in(*sorted((tmp_path / "rec").iterdir()))
    assert len(found) == run.recording.frames == run.given - run.recording.missed
    assert same(found, viewer.images) > 0
    assert max(found) == run.given - 1
    assert opened == [QUALITY]


def test_new_frame_size_keeps_the_viewer_and_starts_a_file(tmp_path: Path) -> None:
    viewer = Viewer()
    with Run(tmp_path, output_to(viewer)) as run:
        for height in (HEIGHT, HEIGHT - 40, HEIGHT):
            run.give(12, height=height, pause=0.005)
    assert [images_in(path).popitem()[1].shape for path in run.recording.paths] == [
        (HEIGHT, WIDTH),
        (HEIGHT - 40, WIDTH),
        (HEIGHT, WIDTH),
    ]
    assert list(run.recorded) == list(range(36))
    assert viewer.sizes == {(HEIGHT, WIDTH)}
    assert viewer.connections == 1
    assert same(run.recorded, {n: viewer.images[n] for n in viewer.images if n % 24 in range(1, 12)}) > 0


def test_frame_that_fails_to_encode_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer, encode = Viewer(), live_encoding.VideoEncoder.encode

    def pick(encoder: Any, frame: Frame) -> Any:
        if threading.current_thread().name == "encode" and number_in(frame.luma) == 5:
            raise RuntimeError("planted")
        return encode(encoder, frame)

    monkeypatch.setattr(live_encoding.VideoEncoder, "encode", pick)
    with Run(tmp_path, output_to(viewer)) as run:
        until(lambda: (run.give(1), viewer.newest > 5)[1])
    assert list(run.recorded) == list(range(run.given))


def test_nothing_is_encoded_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Quality]) -> None:
    monkeypatch.setattr(sink_thread, "_FIRST_PAUSE", 60.0)
    viewer = Viewer()
    viewer.away = True
    output = output_to(viewer)
    with Run(tmp_path, output) as run:
        run.give(2, record=False)
        until(lambda: output.error is not None and not output.takes_frames)
        opened.clear()
        run.encoder._encoder = None
        run.give(20, record=False)
        assert opened == []


def test_viewer_with_its_own_encoder_costs_no_second_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, threads = live_encoding.VideoEncoder.encode, list[str]()

    def note(encoder: Any, frame: Frame) -> Any:
        threads.append(threading.current_thread().name)
        return encode(encoder, frame)

    monkeypatch.setattr(live_encoding.VideoEncoder, "encode", note)
    output = output_to(open_sink(str(tmp_path / "live.m3u8"), OutputSpec(INFO, CLASSES)))
    with Run(tmp_path, output) as run:
        run.give(5, record=False)
        assert set(threads) == {"encode"}
        until(lambda: (run.give(1, record=False, height=HEIGHT - 40), not output.takes_packets)[1])
        until(lambda: not len(run.encoder._queue) + len(output._queue))
        threads.clear()
        run.give(5, record=False, height=HEIGHT - 40)
    assert set(threads) == {"sink"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")
def test_shared_encoding_has_the_priority_of_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, seen = live_encoding.VideoEncoder.encode, set[int]()

    def note(encoder: Any, frame: Frame) -> Any:
        seen.add(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return encode(encoder, frame)

    monkeypatch.setattr(live_encoding.VideoEncoder, "encode", note)
    with Run(tmp_path, output_to(Viewer())) as run:
        run.give(5)
    assert seen == {os.getpriority(os.PRIO_PROCESS, threading.get_native_id())}


def test_network_queue_spans_a_stall_at_any_rate() -> None:
    viewer = Viewer()
    output = output_to(viewer)
    frame = TestCamera(live=False).read()
    assert frame is not None
    for _ in range(8):  # its thread is not started: a stall
        output.put(frame, None)
        time.sleep(0.06 / 8)
    assert output.dropped == 0
    time.sleep(0.12)
    output.put(frame, None)
    assert output.dropped > 0, "but none is older than that"
