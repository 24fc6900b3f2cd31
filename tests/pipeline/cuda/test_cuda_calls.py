"""What a frame asks of the driver and of the interpreter: nothing is sent, fitted or waited for twice."""

from __future__ import annotations

import itertools
import random
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gpu_fake import FakeGpu
from gpu_host import needs_compiler
from gpu_tracker import TrackedRing
from tensorrt_fake import FakeTorch

from cliprl.bench.cuda.host_cost import CALLS, STEPS, TIME, case_of, measure
from cliprl.bench.harness.result import read_result
from cliprl.engines import ClassSpec
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of
from cliprl.pipeline.cuda.gpu_api import CaptureError
from cliprl.pipeline.cuda.ring import CudaRing
from cliprl.pipeline.overlay.overlay import Overlay
from cliprl.pipeline.view.field_of_view import CONFIRMING_FRAMES, FieldOfViewDetector

CLASSES = (ClassSpec("background", (0, 0, 0), "background"),)
SIZE = (240, 320)
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("step", [0.0, 2.0, 10.0])
def test_frame_takes_at_most_twenty_calls_to_the_driver(step: float) -> None:
    """Also while the field of view moves: one copy up, one down, and one of numbers each way."""
    _, calls = measure(frames=20, warm=12, size=(272, 480), step=step)
    assert sum(calls.values()) <= 20
    assert calls["copy"] <= 4
    assert calls["synchronize"] <= 2


def test_committed_figures_are_those_that_are_counted() -> None:
    """Times are those of the machine that is named; calls are the same everywhere."""
    found = read_result(ROOT / "bench" / "results" / "gpu" / "host-cost.json")
    for step in STEPS:
        calls, spent = (found.find(case_of(step), name) for name in (CALLS, TIME))
        assert calls is not None
        assert spent is not None
        assert calls.digest().p50 <= 20
    _, counted = measure(frames=20, warm=12, size=(272, 480))
    still = found.find(case_of(0), CALLS)
    assert still is not None
    assert still.digest().p50 == sum(counted.values())


def disc(index: int, center: float) -> Frame:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    inside = (x - center) ** 2 + (y - SIZE[0] / 2) ** 2 < (SIZE[0] * 0.42) ** 2
    luma = np.where(inside, 120 + (x + y) % 40, 16).astype(np.uint8)
    return Frame(luma, np.full((SIZE[0] // 2, SIZE[1] // 2, 2), 128, np.uint8), index, Fraction(1, 25), index)


def published(ring: CudaRing, frame: Frame) -> Frame:
    luma, chroma = ring.acquire(frame.height, frame.width)
    luma[:], chroma[:] = frame.luma, frame.chroma
    ring.publish(Frame(luma, chroma, frame.pts, frame.time_base, frame.index, frame.color))
    taken = ring.take()
    assert taken is not None
    return taken


@needs_compiler
def test_shape_is_fitted_when_ends_move_or_a_leap_lasts() -> None:
    gpu, fits = FakeGpu(random.Random(1).randrange), list[int]()
    detector = FieldOfViewDetector(64, 80)
    follow = detector.follow

    def counted(ends: Any, size: tuple[int, int]) -> Any:
        fits.append(index)
        return follow(ends, size)

    detector.follow = counted  # type: ignore[method-assign]
    tracked = TrackedRing(gpu, detector)
    expected, leap = FieldOfViewDetector(64, 80), 6
    places = [150.0] * leap + [150.0 + 0.2 * SIZE[1]] * (CONFIRMING_FRAMES + 3)
    views, right = [], []
    for index, place in enumerate(places):
        frame = disc(index, place)
        taken = tracked.take(frame)
        views.append(tracked.view_of(taken))
        right.append(expected.view_of(frame))
        tracked.ring.release(taken)
        gpu.drain()
    # The first is fitted when its size is new and when its ends are there; then one a frame while the leap must last.
    assert fits == [0, 0, *range(leap + 1, leap + 1 + CONFIRMING_FRAMES)]
    assert views[-1] == right[-1] != views[leap]


@needs_compiler
def test_patch_on_the_gpu_is_drawn_as_on_the_cpu() -> None:
    gpu = FakeGpu(random.Random(2).randrange)
    device = CudaDevice(share(gpu, network_of))
    ring, ours, cpu = device.ring(2, "wait"), device.overlay(CLASSES), Overlay(CLASSES)
    copies: list[int] = []
    copy = gpu.copy

    def counted(*arguments: Any) -> None:
        copies.append(1)
        copy(*arguments)

    gpu.copy = counted  # type: ignore[method-assign]
    sent = []
    for index, status in enumerate(["one", "one", "two", "one", "one"]):
        frame = disc(index, 160)
        taken = published(device.frames, frame)
        before = len(copies)
        ours.draw(taken, None, status)
        sent.append(len(copies) - before)
        cpu.draw(frame, None, status)
        np.testing.assert_array_equal(taken.luma, frame.luma)
        np.testing.assert_array_equal(taken.chroma, frame.chroma)
        ring.release(taken)
    assert sent == [2, 1, 2, 2, 1]


class SlowEvent:
    """An event that completes after some queries."""

    def __init__(self, queries: float) -> None:
        self.left, self.slept = queries, False

    def query(self) -> bool:
        self.left -= 1
        return self.left < 0

    def synchronize(self) -> None:
        self.slept = True


def test_a_wait_asks_for_a_moment_before_it_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from cliprl.pipeline.cuda import torch_gpu

    unused: Any = None
    monkeypatch.setattr(torch_gpu, "_SPIN", 60.0)
    soon = SlowEvent(3)
    torch_gpu.TorchGpu.synchronize(unused, soon)  # type: ignore[arg-type]
    assert not soon.slept
    monkeypatch.setattr(torch_gpu, "_SPIN", 0.0)
    late = SlowEvent(float("inf"))
    torch_gpu.TorchGpu.synchronize(unused, late)  # type: ignore[arg-type]
    assert late.slept


def test_captures_have_a_stream_that_a_failure_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a memory pool. Neither is used again: a failed capture may have poisoned both."""
    pytest.importorskip("torch")
    from cliprl.pipeline.cuda import torch_gpu

    fake: Any = FakeTorch([])
    pools, handles = itertools.count(), itertools.count(100)
    fake.device = fake.cuda.get_device_name = lambda *_: "a GPU"
    fake.cuda.graph_pool_handle = lambda: next(pools)
    fake.cuda.ExternalStream = lambda handle, device: SimpleNamespace(cuda_stream=handle)
    monkeypatch.setattr(torch_gpu, "torch", fake)
    launcher: Any = SimpleNamespace(stream=lambda *, urgent: next(handles))
    gpu = torch_gpu.TorchGpu(launcher)
    given: list[Any] = []
    for failing in (False, True, False):
        fake.fail_captures = failing
        try:
            gpu.capture(given.append)
        except CaptureError:
            assert failing
    (first, *_), (pool, stream) = fake.captures[0], fake.captures[2]
    assert fake.captures[0] == fake.captures[1]
    assert pool != first
    assert [each.cuda_stream for each in given] == [100, 100, 101]
    assert stream is given[2]
