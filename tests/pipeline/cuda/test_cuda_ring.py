"""The ring on the GPU, on a simulated one that does its work in any order: no slot is written while anybody reads it."""

from __future__ import annotations

import random
import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from gpu_fake import Deadlock, FakeGpu, FakeStream
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cliprl.pipeline.core.buffers import Policy
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.cuda.context import share
from cliprl.pipeline.cuda.device import CudaDevice
from cliprl.pipeline.cuda.factory import network_of
from cliprl.pipeline.cuda.ring import CudaRing, Slot

HEIGHT, WIDTH = 3, 5


def write(ring: CudaRing, index: int, *, on_gpu: bool = False, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
    luma, chroma = ring.acquire(*size)
    if on_gpu:
        # A hardware decoder: the planes are filled by work of the ring's stream.
        slot = ring.writing()
        for plane in (slot.luma, slot.chroma):
            ring._gpu.run(lambda plane=plane: plane.fill(index % 256), ring.stream)  # type: ignore[attr-defined]
        luma[:], chroma[:] = 0, 0
    else:
        luma[:], chroma[:] = index % 256, index % 256
    ring.publish(Frame(luma, chroma, index, Fraction(1, 25), index))


class Reader:
    """Work of streams that looks at a slot, and notes whether it held what it should."""

    def __init__(self, gpu: FakeGpu, ring: CudaRing) -> None:
        self._gpu, self._ring = gpu, ring
        self.seen: list[int] = []
        self._painted: dict[int, int] = {}

    def look(self, frame: Frame, stream: FakeStream, times: int = 2) -> None:
        slot, index = self._ring.enter(frame, stream), frame.index
        value = self._painted.get(index, index % 256)

        def check() -> None:
            for plane in (slot.luma, slot.chroma):
                assert set(np.unique(plane)) == {value}, f"frame {index} reads {np.unique(plane)}"
            self.seen.append(index)

        for _ in range(times):
            self._gpu.run(check, stream)
        self._ring.leave(frame, stream)

    def paint(self, frame: Frame, stream: FakeStream) -> None:
        """Work of a stream that changes a slot, which those who look afterwards see, and those who looked before do not."""
        slot, value = self._ring.own(frame, stream), (frame.index + 77) % 256
        for plane in (slot.luma, slot.chroma):
            self._gpu.run(lambda plane=plane: plane.fill(value), stream)  # type: ignore[misc]
        self._ring.rewritten(frame, stream)
        self._painted[frame.index] = value


class RingMachine(RuleBasedStateMachine):
    """A live ring under every order of host calls and of GPU work."""

    @initialize(slots=st.integers(2, 5), seed=st.integers(0, 10_000))
    def start(self, slots: int, seed: int) -> None:
        choice = random.Random(seed)
        self.gpu = FakeGpu(choice.randrange, eager=0)
        self.ring = CudaRing(self.gpu, slots, "drop-oldest", self.gpu.stream())
        self.reader = Reader(self.gpu, self.ring)
        self.compute, self.output, self.encode = (self.gpu.stream() for _ in range(3))
        self.slots, self.index, self.dropped = slots, 0, 0
        self.waiting: list[int] = []
        self.held: list[Frame] = []

    @precondition(lambda self: len(self.held) < self.slots)
    @rule(on_gpu=st.booleans())
    def write(self, on_gpu: bool) -> None:
        write(self.ring, self.index, on_gpu=on_gpu)
        if len(self.waiting) + len(self.held) == self.slots:
            self.waiting.pop(0)
            self.dropped += 1
        self.waiting.append(self.index)
        self.index += 1

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        frame = self.ring.take()
        assert frame is not None
        assert frame.index == self.waiting.pop(0)
        self.held.append(frame)
        self.reader.look(frame, self.compute)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), painted=st.booleans(), output=st.booleans())
    def release(self, which: int, painted: bool, output: bool) -> None:
        frame = self.held.pop(which % len(self.held))
        if painted:
            self.reader.paint(frame, self.output)
        if output:
            self.reader.look(frame, self.encode)
        self.ring.release(frame)

    @rule(which=st.integers(0, 4), steps=st.integers(1, 6))
    def progress(self, which: int, steps: int) -> None:
        for _ in range(steps):
            self.gpu.step(self.gpu.streams[which])

    @invariant()
    def drops_are_counted(self) -> None:
        if hasattr(self, "ring"):
            assert self.ring.dropped == self.dropped

    def teardown(self) -> None:
        if hasattr(self, "gpu"):
            self.gpu.drain()


RingMachine.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestRing = RingMachine.TestCase


@settings(max_examples=25, deadline=None)
@given(slots=st.integers(2, 5), seed=st.integers(0, 10_000), policy=st.sampled_from(["wait", "drop-oldest"]))
def test_threads_and_streams_never_meet_in_a_slot(slots: int, seed: int, policy: Policy) -> None:
    gpu = FakeGpu(random.Random(seed).randrange)
    ring, frames = CudaRing(gpu, slots, policy, gpu.stream()), 40
    reader, compute, output = Reader(gpu, ring), gpu.stream(), gpu.stream()

    def produce() -> None:
        for index in range(frames):
            write(ring, index, on_gpu=index % 3 == 0)
        ring.finish()

    writer = threading.Thread(target=produce)
    writer.start()
    taken = []
    while (frame := ring.take()) is not None:
        taken.append(frame.index)
        reader.look(frame, compute)
        reader.paint(frame, output)
        reader.look(frame, output)
        ring.release(frame)
    writer.join(10)
    assert not writer.is_alive()
    gpu.drain()
    assert taken == sorted(taken)
    assert len(taken) + ring.dropped == frames
    assert policy == "drop-oldest" or not ring.dropped
    assert reader.seen.count(taken[-1]) == 4


def test_slots_are_allocated_once_and_follow_a_size_change() -> None:
    gpu = FakeGpu(random.Random(1).randrange)
    ring = CudaRing(gpu, 2, "wait", gpu.stream())
    reader, stream = Reader(gpu, ring), gpu.stream()
    counts = []
    for index in range(12):
        write(ring, index, size=(HEIGHT, WIDTH) if index < 6 else (6, 8))
        frame = ring.take()
        assert frame is not None
        assert ring.slot_of(frame).size == frame.luma.shape
        reader.look(frame, stream)
        ring.release(frame)
        counts.append(gpu.allocations)
    assert counts[1] == counts[5]
    assert counts[7] == counts[11]
    gpu.drain()


def test_misuse_is_named() -> None:
    gpu = FakeGpu(lambda n: 0)
    ring = CudaRing(gpu, 2, "wait", gpu.stream())
    with pytest.raises(ValueError, match="in no slot of this ring"):
        ring.slot_of(Frame(np.zeros((2, 2), np.uint8), np.zeros((1, 1, 2), np.uint8), 0, Fraction(1, 25), 0))


class WritesTooSoon(CudaRing):
    def _admit(self, slot: object) -> None:
        pass


class ReadsTooSoon(CudaRing):
    def enter(self, frame: Frame, stream: FakeStream) -> Slot:
        return self.slot_of(frame)


class PaintsTooSoon(CudaRing):
    def own(self, frame: Frame, stream: FakeStream) -> Slot:
        return self.enter(frame, stream)


class PaintsInSecret(CudaRing):
    def rewritten(self, frame: Frame, stream: FakeStream) -> None:
        self.leave(frame, stream)


class IdleTooSoon(CudaRing):
    def rewritten(self, frame: Frame, stream: FakeStream) -> None:
        super().rewritten(frame, stream)
        self.slot_of(frame).idle = True  # without a wait of the host

    def leave(self, frame: Frame, stream: FakeStream, event: Any = None) -> None:
        super().leave(frame, stream, event)
        self.slot_of(frame).idle = True


class LeavesWithAnEarlyEvent(CudaRing):
    def enter(self, frame: Frame, stream: FakeStream) -> Slot:
        slot = super().enter(frame, stream)
        self.early = self._gpu.event()
        self._gpu.record(self.early, stream)
        return slot

    def leave(self, frame: Frame, stream: FakeStream, event: Any = None) -> None:
        super().leave(frame, stream, self.early)


@pytest.mark.parametrize(
    "careless",
    [WritesTooSoon, ReadsTooSoon, PaintsTooSoon, PaintsInSecret, IdleTooSoon, LeavesWithAnEarlyEvent],
)
def test_the_simulation_finds_rings_that_forget_an_event(careless: type[CudaRing]) -> None:
    caught = 0
    for seed in range(30):
        gpu = FakeGpu(random.Random(seed).randrange, eager=0)
        ring = careless(gpu, 2, "wait", gpu.stream())
        reader, stream, painter, encoder = Reader(gpu, ring), gpu.stream(), gpu.stream(), gpu.stream()
        try:
            for index in range(20):
                write(ring, index)
                frame = ring.take()
                assert frame is not None
                reader.look(frame, stream)
                reader.paint(frame, painter)
                reader.look(frame, encoder)
                ring.release(frame)
            gpu.drain()
        except AssertionError:
            caught += 1
    assert caught > 15


def test_slot_that_the_host_has_waited_for_needs_no_waits() -> None:
    gpu = FakeGpu(lambda n: 0, eager=0)
    ring, waits, wait = CudaRing(gpu, 2, "wait", gpu.stream()), list[Any](), gpu.wait
    gpu.wait = lambda stream, event: (waits.append(stream), wait(stream, event))[1]  # type: ignore[method-assign]
    painter, reader = gpu.stream(), gpu.stream()
    for index in range(6):
        write(ring, index)
        frame = ring.take()
        assert frame is not None
        slot = ring.own(frame, painter)
        ring.rewritten(frame, painter)
        gpu.synchronize(slot.ready)
        slot.idle = True
        if index == 3:  # a reader after the wait: what it reads must not be overwritten
            ring.enter(frame, reader)
            ring.leave(frame, reader)
        ring.release(frame)
    assert waits.count(ring.stream) == 1


def test_the_simulation_finds_deadlocks() -> None:
    gpu = FakeGpu(lambda n: 0)
    event, one, other = gpu.event(), gpu.stream(), gpu.stream()
    event.recorded = 1  # as if recorded by work that is never given
    gpu.wait(one, event)
    gpu.run(lambda: None, other)
    with pytest.raises(Deadlock):
        gpu.drain()


def test_uploads_and_overlays_go_before_the_networks() -> None:
    gpu = FakeGpu(lambda n: 0)
    both = share(gpu, network_of)
    device = CudaDevice(both)
    device.ring(2, "wait")
    overlay: Any = device.overlay(())
    assert device.frames.stream.urgent
    assert overlay._stream.urgent
    assert not both.compute.urgent
