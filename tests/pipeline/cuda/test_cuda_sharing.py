"""What a frame is given and who goes next: step counts, turns of several streams, views that follow a frame behind."""

from __future__ import annotations

import random
import threading
from collections import deque
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from gpu_fake import FakeGpu
from gpu_host import needs_compiler
from gpu_tracker import TrackedRing
from hypothesis import given, settings
from hypothesis import strategies as st

from cliprl.engines import open_bundle
from cliprl.engines.bundle.reference_outputs import encoder_shapes
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.cuda import scheduling
from cliprl.pipeline.cuda.inference import PRIOR_WINDOW, StepPlan
from cliprl.pipeline.cuda.scheduling import DEPTH, GpuTurns, InFlight
from cliprl.pipeline.cuda.upload import UploadBuffers
from cliprl.pipeline.view.field_of_view import FieldOfViewDetector


def test_all_steps_at_first_then_as_many_as_were_needed() -> None:
    plan = StepPlan(4)
    assert plan.next() == 4
    for _ in range(PRIOR_WINDOW):
        plan.learn(4, 2, True, 0.001)
    assert plan.next() == 2
    plan.learn(2, 2, False, 0.001)  # two were not enough
    assert plan.next() == 4
    for _ in range(PRIOR_WINDOW):
        plan.learn(4, 1, True, 0.001)
    assert plan.next() == 1


@given(
    most=st.integers(0, 5),
    frames=st.lists(st.tuples(st.integers(0, 5), st.floats(0.0001, 0.1)), max_size=60),
    budget=st.none() | st.floats(0.0005, 0.05),
)
def test_counts_are_always_recorded_ones(most: int, frames: list[tuple[int, float]], budget: float | None) -> None:
    plan = StepPlan(most, budget)
    for needed, seconds in frames:
        count = plan.next()
        assert 0 <= count <= most
        plan.learn(count, min(needed, count), needed <= count and count > 0, seconds)


def test_a_budget_takes_steps_away_and_gives_them_back() -> None:
    plan = StepPlan(3, budget=0.010)
    cost = {0: 0.004, 1: 0.007, 2: 0.012, 3: 0.016}
    given_counts = []
    for _ in range(6):
        given_counts.append(plan.next())
        plan.learn(given_counts[-1], given_counts[-1], False, cost[given_counts[-1]])
    assert given_counts[:3] == [3, 2, 1]
    assert set(given_counts[2:]) == {1}
    # Estimates of counts that are not used fade, so that they are tried again.
    for _ in range(40):
        given_counts.append(plan.next())
        plan.learn(given_counts[-1], given_counts[-1], False, 0.001)
    assert max(given_counts[6:]) == 3


@pytest.mark.parametrize("streams", [2, 8])
def test_turns_are_fair(streams: int) -> None:
    turns, served, rounds = GpuTurns(), list[int](), 40
    barrier = threading.Barrier(streams)

    def work(me: int) -> None:
        barrier.wait()
        for _ in range(rounds):
            with turns.take():
                served.append(me)

    threads = [threading.Thread(target=work, args=(me,)) for me in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(served) == streams * rounds


def test_a_turn_goes_to_who_has_waited_longest() -> None:
    turns, order, started = GpuTurns(), list[int](), []

    def work(me: int) -> None:
        with turns.take():
            order.append(me)

    with turns.take():
        for me in range(6):
            thread = threading.Thread(target=work, args=(me,))
            thread.start()
            started.append(thread)
            while len(turns._waiting) < me + 2:  # until it waits
                pass
        # Whoever holds the turn and asks again stands behind all who wait.
    for thread in started:
        thread.join(10)
    assert order == list(range(6))


def test_an_error_in_a_turn_hands_it_on() -> None:
    turns = GpuTurns()
    with pytest.raises(OSError, match="gone"), turns.take():
        raise OSError("gone")
    with turns.take():
        pass


def test_who_gives_up_waiting_for_a_turn_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = GpuTurns()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with turns.take():
        monkeypatch.setattr(turns._changed, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt), turns.take():
            pass
    with turns.take():
        assert len(turns._waiting) == 1


@settings(deadline=None)
@given(seed=st.integers(0, 999), frames=st.integers(1, 30))
def test_no_stream_gets_far_ahead_of_the_gpu(seed: int, frames: int) -> None:
    gpu = FakeGpu(random.Random(seed).randrange, eager=0)
    flight, stream, done, ends = InFlight(gpu), gpu.stream(), [], deque[Any]()
    for index in range(frames):
        if len(ends) == DEPTH:  # as the thread does that waits for the frames' ends
            gpu.synchronize(ends[0])
            flight.finished(ends.popleft())
        flight.admit()
        assert index - len(done) < DEPTH
        gpu.run(lambda index=index: done.append(index), stream)  # type: ignore[misc]
        ends.append(gpu.event())
        gpu.record(ends[-1], stream)
        flight.given(ends[-1])
    gpu.drain()
    assert done == list(range(frames))


def test_enqueuing_thread_does_not_wait_while_another_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduling, "_PATIENCE", 60.0)
    gpu = FakeGpu(lambda n: 0)
    flight, stream, ends = InFlight(gpu), gpu.stream(), []
    for _ in range(DEPTH):
        flight.admit()
        ends.append(gpu.event())
        gpu.record(ends[-1], stream)
        flight.given(ends[-1])
    thread = threading.Timer(0.005, flight.finished, (ends[0],))
    thread.start()
    waits = gpu.waits
    flight.admit()
    thread.join()
    assert gpu.waits == waits
    monkeypatch.setattr(scheduling, "_PATIENCE", 0.01)
    flight.given(ends[0])
    flight.admit()  # nobody waits for the ends: it does so itself
    assert gpu.waits == waits + 1


@settings(deadline=None)
@given(seed=st.integers(0, 999), sizes=st.lists(st.integers(1, 9000), min_size=1, max_size=20))
def test_staged_tables_arrive_whole_and_in_order(seed: int, sizes: list[int]) -> None:
    gpu = FakeGpu(random.Random(seed).randrange, eager=1)
    stream = gpu.stream()
    staging, seen = UploadBuffers(gpu, stream), []
    for index, size in enumerate(sizes):
        table = np.full(size, index % 256, np.uint8)
        staging.send("table", table)
        table[:] = 255  # the caller's own again at once
        buffer = staging._buffers["table"]
        gpu.run(lambda b=buffer, n=size: seen.append(set(np.unique(b[:n]).tolist())), stream)  # type: ignore[misc]
        if index % 3:
            staging.close()
    gpu.drain()
    assert seen == [{index % 256} for index in range(len(sizes))]


def test_pinned_memory_is_used_again_once_it_was_read() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    stream = gpu.stream()
    staging, table = UploadBuffers(gpu, stream), np.zeros(100, np.uint8)
    for done in (False, False, True, True):
        staging.send("table", table)
        gpu.drain()
        staging.close(done=done)  # not done: only the event, which the stream has not come to, tells
        used = len(staging._pinned)
        assert used <= 2
    gpu.drain()
    staging.send("table", table)
    assert len(staging._pinned) + len(staging._open) == used


def disc(index: int, centre: float, size: tuple[int, int] = (240, 320)) -> Frame:
    height, width = size
    y, x = np.mgrid[:height, :width]
    inside = (x - centre) ** 2 + (y - height / 2) ** 2 < (height * 0.42) ** 2
    luma = np.where(inside, 120 + (x + y) % 40, 16).astype(np.uint8)
    return Frame(luma, np.full(((height + 1) // 2, (width + 1) // 2, 2), 128, np.uint8), index, Fraction(1, 25), index)


@needs_compiler
@pytest.mark.parametrize("seed", range(4))
def test_view_follows_disc_one_frame_late_and_size_immediately(seed: int) -> None:
    gpu = FakeGpu(random.Random(seed).randrange)
    tracked = TrackedRing(gpu, FieldOfViewDetector(64, 80))
    expected = FieldOfViewDetector(64, 80)
    places = [160.0, 160.0, 166.0, 166.0, 166.0, 166.0, 166.0]
    frames = [disc(i, x) for i, x in enumerate(places)] + [disc(7, 250.0, (400, 500)), disc(8, 9.0, (12, 30))]
    views, right = [], []
    for frame in frames:
        taken = tracked.take(frame)
        views.append(tracked.view_of(taken))
        right.append(expected.view_of(frame))
        tracked.ring.release(taken)
        gpu.drain()
    assert [v == r for v, r in zip(views, right, strict=True)] == [
        True,
        True,
        False,
        True,
        True,
        True,
        True,
        True,
        True,
    ]


def test_torch_networks_take_work_without_waiting() -> None:
    """On a CPU the same code runs at once; what it gives is what `run` gives."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    from cliprl.engines.backends.torch.backend import NAME
    from cliprl.engines.backends.torch.engine import TorchEngine
    from cliprl.engines.backends.torch.graph import Graph

    bundle = open_bundle()
    engine = TorchEngine(Graph(bundle.encoder.read_bytes(), "cpu"), "f32", 1)
    assert engine.backend == NAME
    shapes = encoder_shapes(bundle)
    image = np.random.default_rng(0).integers(0, 256, shapes["image"]).astype(np.uint8)
    inputs = {"image": torch.from_numpy(image), "text": torch.from_numpy(bundle.embeddings)}
    expected = {name: tensor.clone() for name, tensor in engine.run(inputs).items()}
    for _ in range(2):
        outputs = {name: torch.zeros_like(tensor) for name, tensor in expected.items()}
        engine.enqueue(inputs | outputs, None)
        for name, tensor in expected.items():
            torch.testing.assert_close(outputs[name], tensor)
