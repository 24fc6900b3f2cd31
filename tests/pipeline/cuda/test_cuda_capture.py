"""Captures of CUDA graphs on the simulated GPU: they fail, are disturbed, and are refused, and streams run on."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from gpu_fake import FakeGpu, HostNetwork
from gpu_host import needs_compiler
from lock_state import is_locked
from numpy.typing import NDArray

from cliprl.engines import CompiledBundle, load_engines, open_bundle
from cliprl.engines.backends.cuda_graph import CAPTURE_LOCK
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.cuda.context import SharedGpu, share
from cliprl.pipeline.cuda.device import CudaDevice

pytestmark = needs_compiler
LONG = 60.0


@pytest.fixture(scope="module")
def engines() -> CompiledBundle:
    return load_engines(open_bundle(), precision="f32")


def shared(gpu: FakeGpu) -> SharedGpu:
    return share(gpu, lambda engine: HostNetwork(gpu, engine))


def frames(count: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    rng = np.random.default_rng(5)
    for _ in range(count):
        yield rng.integers(30, 200, (72, 96), np.uint8), rng.integers(90, 160, (36, 48, 2), np.uint8)


def labels_of(gpu: FakeGpu, device: CudaDevice, engines: CompiledBundle) -> tuple[list[NDArray[np.uint8]], Any]:
    """The labels of a few frames, and the segmenter that made them."""
    segmenter = device.segmenter(open_bundle(), engines=engines, steps=2)
    ring, found = device.ring(2, "wait"), []
    for index, (luma, chroma) in enumerate(frames(3)):
        planes = ring.acquire(*luma.shape)
        planes[0][:], planes[1][:] = luma, chroma
        ring.publish(Frame(*planes, index, Fraction(1, 25), index))
        frame = ring.take()
        assert frame is not None
        found.append(segmenter(frame).labels.copy())
        ring.release(frame)
    gpu.drain()
    return found, segmenter


@pytest.fixture(scope="module")
def expected(engines: CompiledBundle) -> list[NDArray[np.uint8]]:
    gpu = FakeGpu(random.Random(1).randrange)
    found, _ = labels_of(gpu, CudaDevice(shared(gpu)), engines)
    assert gpu.captures == 4  # the scan of the field of view, and 0 to 2 steps
    assert gpu.replays == 2 * len(found)
    return found


@pytest.mark.parametrize("failing", [{0}, {1}, {3}])
def test_a_failed_capture_leaves_a_stream_that_runs(
    engines: CompiledBundle, expected: list[NDArray[np.uint8]], failing: set[int]
) -> None:
    gpu = FakeGpu(random.Random(2).randrange)
    gpu.failing = failing
    device = CudaDevice(shared(gpu))
    found, _ = labels_of(gpu, device, engines)
    np.testing.assert_array_equal(found, expected)
    assert gpu.replays == 0
    assert len([note for note in device.notes if "no CUDA graph (operation failed" in note]) == 1


def disc_frames() -> Iterator[Frame]:
    """A disc that moves and grows: each frame has another view."""
    y, x = np.mgrid[:96, :128]
    for index, (center, radius) in enumerate([(60, 36), (60, 36), (64, 38), (68, 40), (68, 40), (60, 44)]):
        luma = np.where((x - center) ** 2 + (y - 48) ** 2 < radius**2, 90 + (x * 3 + y * 5 + 11 * index) % 80, 16)
        chroma = np.full((48, 64, 2), (110, 150), np.uint8)
        yield Frame(luma.astype(np.uint8), chroma, index, Fraction(1, 25), index)


@pytest.mark.parametrize("to_host", [True, False])
def test_moving_view_is_the_same_with_and_without_graphs(engines: CompiledBundle, to_host: bool) -> None:
    """Graphs read each frame's view, tables and addresses from the memory of the GPU."""
    seen = []
    for failing in (set[int](), {0}):
        gpu = FakeGpu(random.Random(9).randrange)
        gpu.failing, found = failing, []
        device = CudaDevice(shared(gpu))
        segmenter: Any = device.segmenter(open_bundle(), engines=engines, steps=1)
        ring, overlay = device.ring(3, "wait"), device.overlay(segmenter.classes)
        overlay.to_host = to_host
        for frame in disc_frames():
            planes = ring.acquire(frame.height, frame.width)
            planes[0][:], planes[1][:] = frame.luma, frame.chroma
            ring.publish(Frame(*planes, frame.index, frame.time_base, frame.index))
            taken = ring.take()
            assert taken is not None
            result = segmenter(taken)
            overlay.draw(taken, result, "status")
            gpu.drain()
            slot = device.frames.slot_of(taken)
            found.append((result.view, result.labels.copy(), np.array(slot.luma), np.array(slot.chroma)))
            if to_host:
                np.testing.assert_array_equal(taken.luma, slot.luma)
            ring.release(taken)
        assert bool(gpu.replays) == (not failing)
        seen.append(found)
    assert len({view for view, *_ in seen[0]}) >= 3
    for ours, theirs in zip(*seen, strict=True):
        assert ours[0] == theirs[0]
        for one, other in zip(ours[1:], theirs[1:], strict=True):
            np.testing.assert_array_equal(one, other)


def test_an_engine_that_can_not_be_captured_is_not_captured(
    engines: CompiledBundle, expected: list[NDArray[np.uint8]]
) -> None:
    gpu = FakeGpu(random.Random(3).randrange)
    gpu.capturable = False
    device = CudaDevice(shared(gpu))
    found, _ = labels_of(gpu, device, engines)
    np.testing.assert_array_equal(found, expected)
    assert gpu.captures == 0
    assert any("can't be captured" in note for note in device.notes)


def test_after_a_failed_capture_the_next_stream_is_captured(engines: CompiledBundle) -> None:
    gpu = FakeGpu(random.Random(4).randrange)
    gpu.failing = {0}
    both = shared(gpu)
    labels_of(gpu, CudaDevice(both), engines)
    second = CudaDevice(both)
    labels_of(gpu, second, engines)
    assert gpu.replays == 6
    assert not any("no CUDA graph" in note for note in second.notes)


def test_streams_that_open_and_close_meanwhile_spoil_no_capture(engines: CompiledBundle) -> None:
    """While one stream captures, others load engines, make streams and rings, settle and capture: all wait for it."""
    gpu, inside = FakeGpu(random.Random(6).randrange), threading.Event()
    both = shared(gpu)
    old, failures, stop = CudaDevice(both), list[BaseException](), threading.Event()
    old.ring(2, "wait")

    def pause() -> None:
        inside.set()
        threading.Event().wait(0.05)

    gpu.capture_pause = pause

    def others() -> None:
        try:
            inside.wait(LONG)
            while not stop.is_set():
                device = CudaDevice(both)
                device.overlay(())
                device.ring(2, "wait")
                device.settle()
                old.settle()
        except BaseException as error:
            failures.append(error)

    def opening() -> None:
        try:
            CudaDevice(both).segmenter(open_bundle(), engines=engines, steps=1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (others, opening, opening)]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        thread.join(LONG)
    stop.set()
    threads[0].join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    assert gpu.captures == 6
    assert gpu.spoiled == 0


def test_a_stream_that_opens_waits_for_a_capture(engines: CompiledBundle) -> None:
    gpu, inside, loaded = FakeGpu(random.Random(6).randrange), threading.Event(), threading.Event()

    def load(engine: Any) -> HostNetwork:
        if inside.is_set():
            loaded.set()
        return HostNetwork(gpu, engine)

    def pause() -> None:
        inside.set()
        loaded.wait(0.5)  # in vain

    def open_later() -> None:
        inside.wait(LONG)
        CudaDevice(both).segmenter(open_bundle(), engines=engines, steps=0)

    both, gpu.capture_pause = share(gpu, load), pause
    thread = threading.Thread(target=open_later)
    thread.start()
    CudaDevice(both).segmenter(open_bundle(), engines=engines, steps=0)
    thread.join(LONG)
    assert loaded.is_set()
    assert gpu.spoiled == 0


def test_a_stream_settles_while_nothing_is_captured() -> None:
    gpu, locked = FakeGpu(lambda n: 0), list[bool]()
    device, synchronize = CudaDevice(shared(gpu)), gpu.synchronize
    gpu.synchronize = lambda event: (locked.append(is_locked(CAPTURE_LOCK)), synchronize(event))[1]  # type: ignore[method-assign]
    device.settle()
    assert locked == [True]


def test_a_running_stream_keeps_its_turns_while_another_captures(engines: CompiledBundle) -> None:
    """Only the one run before the captures takes the turn."""
    gpu, taken = FakeGpu(random.Random(7).randrange), list[bool]()
    both = shared(gpu)

    def pause() -> None:
        def turn() -> None:
            with both.turns.take():
                pass

        thread = threading.Thread(target=turn, daemon=True)
        thread.start()
        thread.join(LONG)
        taken.append(not thread.is_alive())

    gpu.capture_pause = pause
    CudaDevice(both).segmenter(open_bundle(), engines=engines, steps=0)
    assert taken == [True, True]  # a turn within each capture


def test_frames_without_graphs_and_a_capture_do_not_deadlock(engines: CompiledBundle) -> None:
    gpu = FakeGpu(random.Random(8).randrange)
    gpu.failing = {0}
    both = shared(gpu)
    device = CudaDevice(both)
    segmenter: Any = device.segmenter(open_bundle(), engines=engines, steps=1)
    assert not segmenter._inference._graphs
    done, gpu.capture_pause = threading.Event(), lambda: time.sleep(0.02)

    def work() -> None:
        for _ in range(40):
            with segmenter._inference.lock, both.turns.take():
                segmenter._inference.run(1)
        done.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    for _ in range(3):
        CudaDevice(both).segmenter(open_bundle(), engines=engines, steps=1)
    assert done.wait(LONG)
    gpu.drain()
    assert gpu.spoiled == 0
