"""What is told of the source follows the age of what is shown: states, rates and marks, in virtual time."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from itertools import chain, repeat

import numpy as np
import pytest
from live_camera import TestCamera
from live_faults import CLASSES
from prometheus_text import metric_samples
from virtual_time import VirtualClock

from cliprl.pipeline import Frame, Overlay
from cliprl.pipeline.core.frame import allocate_planes
from cliprl.pipeline.live import capture as live_camera
from cliprl.pipeline.live import clock as timeline
from cliprl.pipeline.live import status
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame, SourceState, Status
from cliprl.pipeline.live.capture import CapturedFrame, LiveCapture
from cliprl.pipeline.live.clock import Rate
from cliprl.pipeline.live.controls import Controls
from cliprl.pipeline.live.display_loop import DisplayLoop, DisplayPolicy
from cliprl.pipeline.live.lateness import BEHIND
from cliprl.pipeline.live.stream import LiveStream
from cliprl.pipeline.web.metrics import exposition, latency_histogram
from cliprl.pipeline.web.status_json import ProgramInfo
from cliprl.pipeline.window.window import status_lines


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualClock:
    clock = VirtualClock()
    for module in (live_camera, status, timeline):
        monkeypatch.setattr(module, "time", clock, raising=False)
    return clock


def frame_of(captured: float) -> Frame:
    luma, chroma = allocate_planes(72, 96)
    luma[:], chroma[:] = 90, 128
    return Frame(luma, chroma, 0, Fraction(1, 25), 0, times={"captured": captured})


def steady(camera: LiveCapture, clock: VirtualClock, rate: float, frames: int) -> list[SourceState]:
    """Where the camera stands just before and just after each of so many frames."""
    seen = []
    for _ in range(frames):
        clock.sleep(1 / rate)
        seen.append(camera.status.state)
        camera._put(frame_of(clock.now))
        seen.append(camera.status.state)
    return seen


def test_a_slow_camera_is_not_called_stalled_again_and_again(clock: VirtualClock) -> None:
    """It states 25 frames a second and gives one."""
    camera = LiveCapture(TestCamera, TestCamera(), name="slow")
    steady(camera, clock, 1, 10)
    assert set(steady(camera, clock, 1, 50)) == {SourceState.LIVE}
    clock.sleep(2.6)
    assert camera.status.state is SourceState.STALLED


def test_stall_is_detected_at_once_and_is_no_slowness(clock: VirtualClock) -> None:
    camera = LiveCapture(TestCamera, TestCamera(), name="camera")
    steady(camera, clock, 25, 30)
    for _ in range(5):
        clock.sleep(live_camera.STALL_SECONDS + 0.01)
        assert camera.status.state is SourceState.STALLED
        steady(camera, clock, 25, 30)


def test_a_source_that_ends_during_a_question_answers_it(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that reads lets go of it between two looks of another."""
    camera = LiveCapture(TestCamera, source := TestCamera(), name="camera")
    steady(camera, clock, 25, 30)
    clock.sleep(live_camera.STALL_SECONDS + 0.01)
    looks = chain([source], repeat(None))
    monkeypatch.setattr(LiveCapture, "_reading", property(lambda _: next(looks)), raising=False)
    assert camera.status.state is SourceState.STALLED
    looks = chain([source], repeat(None))
    assert not camera._is_segmented


def test_waiting_packets_are_no_stall_of_the_camera(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = LiveCapture(TestCamera, source := TestCamera(), name="camera")
    steady(camera, clock, 25, 30)
    camera._reading = source
    monkeypatch.setattr(TestCamera, "waiting", 3)
    clock.sleep(2)
    assert camera.status.state is SourceState.BEHIND


def test_packets_without_frames_are_called_a_loss(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = LiveCapture(TestCamera, source := TestCamera(), name="camera")
    steady(camera, clock, 25, 30)
    camera._reading = source
    clock.sleep(2)
    assert "stopped sending" in camera.status.problem
    monkeypatch.setattr(TestCamera, "is_undecodable", True)
    assert (camera.status.state, "next key frame" in camera.status.problem) == (SourceState.STALLED, True)


def test_overdue_frames_are_dropped_if_newer_ones_wait(clock: VirtualClock) -> None:
    camera, shown = LiveCapture(TestCamera, TestCamera(), name="camera"), []
    for _ in range(100):
        for _ in range(5):
            clock.sleep(0.04)
            camera._put(frame_of(clock.now))
        captured = camera.next(0)
        assert captured is not None
        shown.append(clock.now - captured.frame.times["captured"])
    assert max(shown[10:]) < 0.7
    assert camera.dropped == 500 - len(shown) - len(camera._queue)


def test_capture_times_are_kept_and_skipped_frames_count_dropped(clock: VirtualClock) -> None:
    camera = LiveCapture(TestCamera, TestCamera(), name="camera")
    camera._put(frame_of(clock.now - 3))
    captured = camera.next(0)
    assert captured is not None
    assert captured.frame.times["captured"] == clock.now - 3
    camera.skipped = 7
    assert camera.dropped == 7


def test_the_rate_of_a_source_that_stalls_falls_to_nothing(clock: VirtualClock) -> None:
    rate = Rate()
    for _ in range(100):
        clock.sleep(0.04)
        rate.count(clock.now)
    assert rate.at(clock.now + 0.04) == pytest.approx(25)
    assert rate.at(clock.now + 0.5) == pytest.approx(2)
    assert rate.at(clock.now + 1.1) == 0
    assert Rate().at(clock.now) == 0


@pytest.fixture
def display(clock: VirtualClock) -> Callable[[float], DisplayedFrame]:
    """Displays a frame that is so many seconds old."""
    camera = LiveCapture(TestCamera, TestCamera(), name="camera")
    camera._put(frame_of(clock.now))
    camera.next(0)
    made = DisplayLoop(
        camera, Overlay(CLASSES), None, (), (), None, Controls(CLASSES), DisplayPolicy(), "", lambda text: None
    )

    def show(age: float) -> DisplayedFrame:
        clock.sleep(0.04)
        camera._put(frame_of(clock.now - age))
        made.show(CapturedFrame(frame_of(clock.now - age), 1))
        assert made.broadcast.newest is not None
        return made.broadcast.newest

    return show


def test_an_old_frame_is_marked_and_told_with_its_age(display: Callable[[float], DisplayedFrame]) -> None:
    young, old = display(0.2), display(2.5)
    assert (young.status.state, young.status.behind_s) == (SourceState.LIVE, None)
    assert young.status.latency_ms == pytest.approx(200)
    assert (old.status.state, old.status.behind_s) == (SourceState.BEHIND, pytest.approx(2.5))
    assert old.status.latency_ms == pytest.approx(2500)
    assert "late" in old.status.problem
    assert (old.overlaid.luma != young.overlaid.luma).any(), "the words are in the picture"
    np.testing.assert_array_equal(old.raw.luma, young.raw.luma)
    ages = [0.1] * 40
    states = [display(age).status.state for age in ages]
    assert states[0] is SourceState.BEHIND, "it does not flicker"
    assert states[-1] is SourceState.LIVE


def test_a_picture_that_nothing_replaces_grows_old() -> None:
    """As where the whole display path is starved: who asks is told the age of now."""
    status = Status(SourceState.LIVE, fps=25.0, captured=100.0, displayed=100.1, latency_ms=100.0)
    assert status.at(100.12) == status
    later = status.at(103.0)
    assert (later.state, later.behind_s, later.latency_ms) == (SourceState.BEHIND, 3.0, 3000.0)
    assert later.fps < 1
    assert status_lines(later, 40) == ("Behind by 3 s",)
    assert status_lines(status, 40) == ()
    assert status.at(100 + BEHIND - 0.01).state is SourceState.LIVE
    file = Status(SourceState.LIVE, fps=25.0)
    assert file.at(1e9) == file


def test_page_metrics_and_health_are_told_the_age_of_now() -> None:
    broadcast, now = Broadcast(), time.monotonic()
    frame = frame_of(now - 5)
    status = Status(SourceState.LIVE, fps=25.0, captured=now - 5, displayed=now - 4.9, skipped=3)
    broadcast.publish(DisplayedFrame(0, frame, frame, frame, frame, status))
    program = ProgramInfo(broadcast, Controls(CLASSES), TestCamera().info, CLASSES)
    told = program.status_json(1)
    assert told["state"] == "behind"
    assert told["behind_s"] >= 5
    assert told["picture_age_s"] >= 5
    assert told["skipped"] == 3
    json.dumps(told)
    samples = metric_samples(exposition(broadcast, program.status(), latency_histogram(), (), 0))
    assert samples["cliprl_picture_age_seconds"] >= 5
    assert samples["cliprl_frames_skipped_total"] == 3
    assert samples['cliprl_source_state{state="behind"}'] == 1
    assert samples['cliprl_source_state{state="live"}'] == 0
    broadcast.close()
    assert program.status().state is SourceState.ENDED
    after = metric_samples(exposition(broadcast, program.status(), latency_histogram(), (), 0))
    assert math.isnan(after["cliprl_picture_age_seconds"])


@pytest.mark.parametrize(("step", "jumps", "noted"), [(0.2, False, True), (0.04, False, False), (0.5, True, False)])
def test_a_file_that_plays_too_slowly_is_noted(clock: VirtualClock, step: float, jumps: bool, noted: bool) -> None:
    """Rendering, reading or displaying takes `step` seconds a frame at 25 FPS; the pause of a seek is no slowness."""
    camera = LiveCapture(TestCamera, TestCamera(live=False), name="file")
    for number in range(20):
        frame = replace(frame_of(clock.now), pts=number, index=number)
        clock.sleep(step)
        camera._jumps += jumps
        camera._put(frame)
        assert camera.next(0) is not None
    notes = LiveStream(camera, Overlay(())).summary().notes
    assert camera.dropped == 0
    assert [note[:12] for note in notes] == ["playing took"] * noted
