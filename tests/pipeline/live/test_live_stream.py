"""The live path under faults: the picture goes on, says whose mask it shows, and every thread and process ends."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice, pairwise
from mmap import mmap
from pathlib import Path

import live_gpu
import numpy as np
import psutil
import pytest
from gpu_host import needs_compiler
from live_camera import SQUARE, TestCamera, number_in, place_of
from live_faults import CLASSES, Broken, Make, MakeTracked, seen
from live_gpu import MakeOnGpu
from waiting import PATIENCE, until

from cliprl.engines import CliprlError, UsageError, open_bundle
from cliprl.pipeline import Overlay, Segmentation, Segmenter, Style, open_source
from cliprl.pipeline.core.child_process import SHARED_BYTES, planes_in
from cliprl.pipeline.core.confidence import ConfidenceModel
from cliprl.pipeline.core.segmentation import Followed, FollowState
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame, Freshness, SourceState
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.display_loop import DisplayPolicy
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.live.segmentation import worker
from cliprl.pipeline.live.segmentation.device_segmenter import open_device_segmenter
from cliprl.pipeline.live.segmentation.mask_selection import MaskSelector
from cliprl.pipeline.live.segmentation.supervisor import NumberedSegmentation, SegmentationState, Supervisor
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.tracking.optical_flow import moved

# Seconds after which a test gives up waiting for what has to come.
LIMIT = PATIENCE
# Each fault of `live_faults`, and what the picture says of it.
TOLD = {"raise": "planted: the engine broke", "hang": "has hung", "nan": "not a number", "die": "killed by signal 9"}
PLAIN = Style(opacity=1.0, contours=False, legend=False, status=False)


class Watched:
    """A live stream on a thread, and all that it displayed."""

    def __init__(
        self,
        source: TestCamera,
        supervisor: Supervisor | None = None,
        promise: DisplayPolicy | None = None,
        style: Style | None = None,
    ) -> None:
        self.source = source
        self.sources = [source]
        self.away = False  # whether the source can't be opened again
        camera = LiveCapture(self._again, source, name="camera")
        self.log: list[str] = []
        self.stream = LiveStream(camera, Overlay(CLASSES, style), supervisor, policy=promise, log=self.log.append)
        self.shown: list[DisplayedFrame] = []
        publish = self.stream.broadcast.publish

        def note(shown: DisplayedFrame, *, freeze: bool = False) -> None:
            publish(shown, freeze=freeze)
            self.shown.append(shown)

        self.stream.broadcast.publish = note  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.stream.run, daemon=True)
        self.thread.start()
        running.append(self)

    def _again(self) -> TestCamera:
        if self.away:
            raise CliprlError("camera: still away")
        self.sources.append(TestCamera())
        return self.sources[-1]

    def until(self, done: Callable[[DisplayedFrame], bool], since: int = 0) -> DisplayedFrame:
        """The first picture from number `since` on for which `done` holds."""
        limit = time.monotonic() + LIMIT
        while time.monotonic() < limit:
            for shown in self.shown[since:]:
                if done(shown):
                    return shown
            time.sleep(0.01)
        raise AssertionError(f"never; the last status is {self.shown[-1].status if self.shown else None}")

    def end(self) -> list[DisplayedFrame]:
        self.stream.stop()
        self.thread.join(LIMIT)
        assert not self.thread.is_alive()
        return self.shown


running: list[Watched] = []


@pytest.fixture(autouse=True)
def _end_all() -> Iterator[None]:
    """A test that fails leaves its stream running, and every picture of it in memory."""
    yield
    while running:
        running.pop().end()


def with_mask(shown: DisplayedFrame) -> bool:
    return shown.status.mask is not Freshness.OFF


@pytest.mark.parametrize(
    ("make", "told"),
    [(Make, TOLD), (MakeOnGpu, TOLD | {"lost": "illegal memory access"})],
)
def test_segmenter_faults_are_shown_and_every_frame_is_displayed(
    make: type[Make] | type[MakeOnGpu], told: dict[str, str], tmp_path: Path
) -> None:
    source, supervisor = TestCamera(), Supervisor(make(0.005, tmp_path), len(CLASSES), hang=2.0)
    watched = Watched(source, supervisor, DisplayPolicy(max_age_ms=5000))
    watched.until(with_mask)
    for fault, words in told.items():
        before = len(watched.shown)
        (tmp_path / fault).touch()
        watched.until(lambda s, w=words: w in s.status.reason, before)  # type: ignore[misc]
        after = watched.until(lambda s, w=words: w in s.status.reason and with_mask(s), before)  # type: ignore[misc]
        assert after.status.reason.startswith("segmentation was off: "), (
            "a mask is shown again, and the fault still told"
        )
    watched.until(lambda s: with_mask(s) and not s.status.reason, after.index)
    shown = watched.end()
    numbers = [number_in(s.raw.luma) for s in shown if s.from_camera]
    assert numbers == sorted(set(numbers))
    # A machine that is busy with other things loses some, which are counted: every frame is displayed or accounted for.
    assert len(numbers) + watched.stream.capture.dropped >= numbers[-1] + 1
    assert supervisor.restarts >= 2, "after the hang and the death"


@needs_compiler
def test_host_frame_comes_back_as_a_plain_segmentation() -> None:
    """The real segmenter on the simulated GPU, as the worker process uses it, against the CPU's."""
    bundle = open_bundle()
    ours, cpu = (
        open_device_segmenter(live_gpu.open_device, bundle, steps=1),
        Segmenter(bundle, precision="f32", steps=1),
    )
    with open_source("demo:?seconds=1&size=320x240&rate=10&seed=3") as source:
        for frame in islice(source, 3):
            luma = frame.luma.copy()
            found, expected = pickle.loads(pickle.dumps(ours(frame))), cpu(frame)
            assert type(found) is Segmentation
            for mask, theirs in ((found, expected), (found.likeliest, expected.likeliest)):
                assert len(mask.probabilities) == len(theirs.probabilities)
                assert (mask.labels == theirs.labels).mean() > 0.99
                np.testing.assert_allclose(mask.probabilities.sum(0), 1, atol=1e-4)
            assert found.parts == expected.parts
            np.testing.assert_array_equal(frame.luma, luma)
            assert frame.slot == -1


def test_a_moved_mask_keeps_the_reliability_of_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = Segmenter(open_bundle(), precision="f32", steps=0)
    memory = mmap(-1, SHARED_BYTES)
    with open_source("demo:?seconds=1&size=320x240&rate=10&seed=3") as source:
        frame = next(iter(source))
        for plane, shared in zip((frame.luma, frame.chroma), planes_in(memory, 240, 320), strict=True):
            np.copyto(shared, plane)
        found = pickle.loads(pickle.dumps(worker._prepare(lambda: segmenter, memory)(worker.WorkerTask.of(0, frame))))
    monkeypatch.setattr(ConfidenceModel, "assess", lambda *_: pytest.fail("computed again"))
    shifted = moved(found, np.ones((192, 256, 2), np.float32))
    assert shifted.reliability is not None
    assert shifted.reliability == found.reliability


def test_fault_between_frames_is_shown_on_the_next() -> None:
    supervisor = Supervisor(Make(), len(CLASSES))  # not started: what it says is said here
    masks = MaskSelector(supervisor, max_age_ms=5000)
    camera, reasons = TestCamera(live=False), []
    for faults in (0, 0, 1, 1):
        frame = camera.read()
        assert frame is not None
        frame.times["captured"] = time.monotonic()
        supervisor.set_state(
            SegmentationState(NumberedSegmentation(frame.index, seen(frame)), "", faults, "it hung" if faults else "")
        )
        chosen = masks.choose(frame.index, frame)
        assert chosen.mask is Freshness.FRESH
        reasons.append(chosen.reason)
    assert reasons == ["", "", *2 * ["segmentation was off: it hung"]]


@pytest.mark.parametrize("make", [Make, MakeOnGpu])
def test_a_worker_killed_from_outside_is_replaced(make: type[Make] | type[MakeOnGpu]) -> None:
    supervisor = Supervisor(make(), len(CLASSES))
    watched = Watched(TestCamera(), supervisor)
    watched.until(with_mask)
    for restart in (1, 2):
        while (victim := supervisor.pid) is None:
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)
        watched.until(lambda s, n=restart: s.status.restarts == n and with_mask(s))  # type: ignore[misc]
        assert supervisor.pid != victim
    worker = supervisor.pid
    watched.end()
    assert worker is not None
    until(lambda: not psutil.pid_exists(worker) or psutil.Process(worker).status() == psutil.STATUS_ZOMBIE)


def test_segmenter_that_never_starts_leaves_raw_frame_and_reason() -> None:
    watched = Watched(TestCamera(), Supervisor(Broken(), len(CLASSES)), style=PLAIN)
    watched.until(lambda s: "no bundle here" in s.status.reason)
    for shown in watched.end():
        np.testing.assert_array_equal(shown.raw.luma, shown.overlaid.luma)
    frames = watched.stream.recorder.frames
    assert f"{frames} of {frames} frames have no mask: " in watched.stream.summary().notes[-1]
    assert [line for line in watched.log if "the segmenter has failed" in line and "no bundle here" in line]


def painted(shown: DisplayedFrame) -> np.ndarray | None:
    """The centre (x, y) of what is painted green."""
    rows, columns = np.nonzero(shown.overlaid.chroma[..., 1] < 80)
    return np.array([columns.mean() * 2 + 0.5, rows.mean() * 2 + 0.5]) if len(rows) else None


def test_old_mask_follows_the_moving_target_with_its_age() -> None:
    supervisor = Supervisor(Make(0.15), len(CLASSES))
    watched = Watched(TestCamera(), supervisor, DisplayPolicy(max_age_ms=400), PLAIN)
    aged: list[int] = []
    while len(aged) < 60:
        aged.append(watched.until(lambda s: s.status.mask is Freshness.AGED, aged[-1] + 1 if aged else 0).index)
    errors, standing = [], []
    for shown in watched.end():
        centre, index = painted(shown), number_in(shown.raw.luma)
        assert (centre is not None) == with_mask(shown), "a mask is shown exactly where the status says so"
        if centre is None:
            continue
        assert shown.status.age_ms is not None
        if shown.status.mask is Freshness.AGED:
            assert 0 < shown.status.age_ms <= 400
            errors.append(np.linalg.norm(centre - np.array(place_of(index)) - SQUARE / 2))
            standing.append(5 * 25 * shown.status.age_ms / 1000)
    assert len(errors) > 20
    print(np.percentile(errors, [50, 95, 100]), np.median(standing))
    assert np.percentile(errors, 95) < 12, "pixels between mask and target"
    assert np.median(errors) < 0.25 * np.median(standing), "far less than a mask that stands still"


def test_a_followed_instrument_is_lost_with_its_tracker(tmp_path: Path) -> None:
    follow, following = FollowControl(), Followed(FollowState.FOLLOWING, 1)
    supervisor = Supervisor(MakeTracked(0.005, tmp_path), len(CLASSES), hang=2.0, follow=follow)
    watched = Watched(TestCamera(live=False), supervisor, DisplayPolicy(max_age_ms=5000))
    first = watched.until(with_mask)
    assert first.status.followed is None
    assert follow.choose_next() == following
    watched.until(lambda s: s.status.followed == following, first.index)
    (tmp_path / "die").touch()
    without = watched.until(lambda s: not with_mask(s), first.index)
    assert without.status.followed == Followed(FollowState.LOST, 1)
    lost = watched.until(lambda s: with_mask(s) and s.status.followed == Followed(FollowState.LOST, 0), without.index)
    assert not any(s.status.followed == following for s in watched.shown[without.index : lost.index])
    watched.stream.controls.change(paused=True)
    opacity = cycle((0.5, 1.0))

    def is_still() -> bool:
        """Whether the frames on their way are displayed: then the last one is drawn again for each new look."""
        watched.stream.controls.change(opacity=next(opacity))
        return not any(shown.from_camera for shown in watched.shown[-3:])

    until(is_still)
    still = len(watched.shown)
    assert follow.choose_next() == following
    watched.until(lambda s: s.status.followed == following and not s.from_camera, still)


def test_instruments_of_a_lost_source_cannot_be_chosen() -> None:
    follow, frame = FollowControl(), TestCamera(live=False).read()
    assert frame is not None
    supervisor = Supervisor(Make(), len(CLASSES), follow=follow)  # not started
    supervisor.set_state(SegmentationState(NumberedSegmentation(0, MakeTracked()()(frame))))
    assert follow.choose_next().id == 1
    supervisor.forget()
    with pytest.raises(UsageError, match="no instrument is in view"):
        follow.choose_next()


def test_a_segmenter_that_is_merely_slow_is_left_alone() -> None:
    supervisor = Supervisor(Make(0.5), len(CLASSES), hang=0.3)
    watched = Watched(TestCamera(), supervisor, DisplayPolicy(max_age_ms=5000))
    first = watched.until(with_mask)
    watched.until(lambda s: s.index > first.index + 50)
    watched.end()
    assert supervisor.restarts == 0


def test_masks_beyond_the_age_limit_are_not_shown() -> None:
    watched = Watched(TestCamera(), Supervisor(Make(0.2), len(CLASSES)), DisplayPolicy(max_age_ms=50), PLAIN)
    watched.until(lambda s: "older than 50 ms" in s.status.reason)
    for shown in watched.end():
        assert (shown.status.age_ms or 0) <= 50


def test_waiting_a_moment_gives_each_frame_its_own_mask() -> None:
    promise = DisplayPolicy(wait_ms=1000 * LIMIT)
    watched = Watched(TestCamera(rate=5), Supervisor(Make(), len(CLASSES)), promise)
    first = watched.until(lambda s: s.status.mask is Freshness.FRESH)
    watched.until(lambda s: s.index > first.index + 5)
    assert all(s.status.mask is Freshness.FRESH for s in watched.end()[first.index :])


def is_marked(shown: DisplayedFrame) -> bool:
    """Whether the picture's edge is red all round."""
    edges = [p.chroma[..., 1][[0, -1], :].min() for p in (shown.raw, shown.overlaid)]
    return min(edges) > 150


def test_stalled_camera_is_marked_until_it_continues() -> None:
    watched = Watched(TestCamera())
    watched.until(lambda s: s.index > 5)
    watched.source.silent.set()
    stalled = watched.until(lambda s: s.status.state is SourceState.STALLED)
    assert is_marked(stalled)
    assert not stalled.from_camera
    watched.until(lambda s: s.index > stalled.index + 5)
    watched.source.silent.clear()
    back = watched.until(lambda s: s.from_camera, stalled.index)
    assert back.status.state is SourceState.LIVE
    for shown in watched.end():
        assert is_marked(shown) == (not shown.from_camera)


def test_damaged_frames_are_stated_after_the_first() -> None:
    """Lost packets leave wrong parts in an image, which was stated nowhere."""
    watched = Watched(TestCamera())
    watched.source.damaged = 1
    early = watched.until(lambda s: s.index > 5)
    watched.source.damaged = 3
    watched.until(lambda s: "frames arrive damaged" in s.status.note, early.index)
    assert not any("damaged" in shown.status.note for shown in watched.end() if shown.index < early.index)


def test_a_paused_file_is_not_marked() -> None:
    watched = Watched(TestCamera(live=False))
    watched.until(lambda s: s.index > 5)
    watched.stream.controls.change(paused=True)
    time.sleep(1.0)
    paused = len(watched.shown)
    watched.stream.controls.change(paused=False)
    watched.until(lambda s: s.index > paused + 5)
    shown = watched.shown[:]
    assert all(s.from_camera and s.status.state is SourceState.LIVE and not is_marked(s) for s in shown)
    numbers = [number_in(s.raw.luma) for s in shown]
    assert numbers == list(range(len(numbers)))


def test_a_picture_that_stands_still_follows_the_controls() -> None:
    watched = Watched(TestCamera(live=False), Supervisor(Make(), len(CLASSES)), DisplayPolicy(max_age_ms=60_000), PLAIN)
    watched.until(lambda s: painted(s) is not None)
    watched.stream.controls.change(paused=True)
    for step in range(1, 100):  # the last frame before the pause may still be on its way
        watched.stream.controls.change(opacity=0.5 if step % 2 else 0.4, frozen=True)
        time.sleep(0.1)
        if not watched.shown[-1].from_camera:
            break
    again = watched.until(lambda s: not s.from_camera)
    before = watched.shown[again.index - 1]
    assert again.status.state is SourceState.LIVE
    np.testing.assert_array_equal(again.raw.luma, before.raw.luma)
    assert (again.overlaid.chroma != before.overlaid.chroma).any()
    assert watched.stream.broadcast.frozen is not None
    watched.end()
    summary, ended = watched.stream.summary(), threading.Event()
    lingering = threading.Thread(target=watched.stream.linger, args=(ended,))
    lingering.start()
    watched.stream.controls.change(opacity=0.0)
    last = watched.until(lambda s: s.status.state is SourceState.ENDED)
    ended.set()
    lingering.join(LIMIT)
    np.testing.assert_array_equal(last.raw.chroma, last.overlaid.chroma)
    assert watched.stream.summary().fps == summary.fps, "the wait after the end is no part of the run"


@pytest.mark.parametrize("make", [None, MakeOnGpu])
def test_lost_camera_is_replaced_by_a_card_until_back(make: type[MakeOnGpu] | None) -> None:
    watched = Watched(TestCamera(), Supervisor(make(), len(CLASSES)) if make else None)
    watched.until(lambda s: s.index > 5)
    watched.away = True
    watched.source.broken.set()
    away = watched.until(lambda s: s.status.state is SourceState.RECONNECTING and "still away" in s.status.problem)
    assert not away.from_camera
    watched.away = False
    assert (away.raw.height, away.raw.width) == (watched.shown[0].raw.height, watched.shown[0].raw.width)
    back = watched.until(lambda s: s.from_camera and s.status.state is SourceState.LIVE, away.index)
    assert back.status.reconnections == 1
    if make:
        watched.until(lambda s: s.from_camera and with_mask(s), back.index)
    pts = [s.raw.pts for s in watched.end()]
    assert pts == sorted(set(pts)), "times go on over the gap"
    assert watched.source.closed


def test_unexpected_error_of_an_attempt_does_not_end_capture() -> None:
    attempts = list[int]()

    def connect() -> TestCamera:
        attempts.append(len(attempts))
        if len(attempts) == 1:
            raise RuntimeError("a library failed")
        return TestCamera()

    capture = LiveCapture(connect, name="camera")
    capture.start()
    captured = capture.next(LIMIT)
    capture.close()
    assert captured is not None
    assert len(attempts) == 2


def test_without_reconnection_the_first_loss_is_the_last() -> None:
    source = TestCamera()
    stream = LiveStream(LiveCapture(TestCamera, source, name="camera", reconnect=False), Overlay(CLASSES))
    threading.Timer(0.5, source.broken.set).start()
    with pytest.raises(CliprlError, match="cable was pulled"):
        stream.run()
    assert stream.summary().frames > 0


def test_frames_shared_outside_the_body_are_blocks_with_status() -> None:
    watched = Watched(TestCamera())  # grey: no inside of a body
    watched.until(lambda s: s.index > 5)
    watched.source.silent.set()
    stalled = watched.until(lambda s: s.status.state is SourceState.STALLED)
    watched.away = True
    watched.source.broken.set()
    card = watched.until(lambda s: s.status.state is SourceState.RECONNECTING and not s.from_camera)
    for shown in watched.end():
        assert shown.status.out_of_body
        if shown.from_camera:
            assert np.ptp(shown.raw.luma[100:108, 200:208]) > 4 * np.ptp(shown.shared_raw.luma[100:108, 200:208])
            assert (shown.shared_overlaid.luma != shown.shared_raw.luma).any(), "the status line"
    assert stalled.shared_raw.chroma[0, 0, 1] > 150, "the mark is on what is shared too"
    assert np.ptp(stalled.raw.luma[200:220, 200:220]) > np.ptp(stalled.shared_raw.luma[200:210, 200:210])
    assert card.shared_raw is card.raw, "a card shows nobody"


def test_readers_of_any_speed_see_the_newest_and_harm_nobody() -> None:
    watched = Watched(TestCamera())
    broadcast, seen = watched.stream.broadcast, [0]
    for _ in range(3):
        watched.until(lambda s: s.index > seen[-1] + 4)  # a slow reader
        newest = broadcast.wait_newer(seen[-1], LIMIT)
        assert newest is not None
        seen.append(newest.index)
    shown = watched.end()
    assert all(b - a > 3 for a, b in pairwise(seen))
    assert [s.index for s in shown] == list(range(len(shown)))
    assert broadcast.closed
    assert broadcast.wait_newer(len(shown), LIMIT) is None


def test_controls_change_the_picture_and_refuse_nonsense() -> None:
    controls = Controls(CLASSES)
    for bad in (
        {"opacity": 1.5},
        {"opacity": True},
        {"frozen": 1},
        {"hidden": ["nothing"]},
        {"snapshots": 3},
        {"x": 1},
    ):
        with pytest.raises(UsageError):
            controls.change(**bad)
    assert controls.show("target", False).hidden == {"target"}
    assert controls.show("target", True).hidden == frozenset()
    with pytest.raises(UsageError, match="unknown class"):
        controls.show("background", False)
    watched = Watched(TestCamera(), Supervisor(Make(), len(CLASSES)), style=PLAIN)
    watched.stream.controls.change(opacity=1.0, contours=False)
    watched.until(lambda s: painted(s) is not None)
    before = len(watched.shown)
    watched.stream.controls.show("target", False)
    watched.until(lambda s: with_mask(s) and painted(s) is None, before)
    watched.stream.controls.change(frozen=True)
    watched.until(lambda s: watched.stream.broadcast.frozen is not None)
    still = watched.stream.broadcast.frozen
    assert still is not None
    watched.until(lambda s: s.index > still.index + 5)
    assert watched.stream.broadcast.frozen is still
    watched.end()


def test_a_hub_without_pictures_waits_no_longer_than_asked() -> None:
    assert Broadcast().wait_newer(-1, 0.01) is None


def test_nothing_is_left_behind() -> None:
    threads, handles = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        watched = Watched(TestCamera(), Supervisor(Make(), len(CLASSES)))
        watched.until(with_mask)
        watched.end()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == handles
