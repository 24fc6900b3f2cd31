"""The ring: order, policies, and that a slot the reader holds is never written."""

from __future__ import annotations

import threading
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cliprl.pipeline.core.buffers import FrameRing, RingClosed
from cliprl.pipeline.core.frame import Frame


def write(ring: FrameRing, index: int, height: int = 4, width: int = 6) -> Frame:
    luma, chroma = ring.acquire(height, width)
    luma[:] = index % 256
    chroma[:] = index % 256
    frame = Frame(luma, chroma, pts=index, time_base=Fraction(1, 25), index=index)
    ring.publish(frame)
    return frame


def test_a_file_waits_and_loses_nothing() -> None:
    ring = FrameRing(3)
    seen: list[int] = []

    def produce() -> None:
        for index in range(200):
            write(ring, index)
        ring.finish()

    writer = threading.Thread(target=produce)
    writer.start()
    while (frame := ring.take()) is not None:
        assert int(frame.luma[0, 0]) == frame.index % 256
        seen.append(frame.index)
        ring.release(frame)
    writer.join()
    assert seen == list(range(200))
    assert ring.dropped == 0


@given(
    slots=st.integers(2, 6),
    moves=st.lists(st.sampled_from(["write", "take", "release oldest", "release newest"]), max_size=80),
)
def test_live_ring_drops_oldest_and_never_a_held_slot(slots: int, moves: list[str]) -> None:
    ring = FrameRing(slots, "drop-oldest")
    waiting: list[int] = []
    held: list[Frame] = []
    dropped = index = 0
    for move in moves:
        if move == "write":
            if len(held) == slots:
                continue  # the writer would wait: every slot is held
            write(ring, index)
            if len(waiting) + len(held) == slots:
                waiting.pop(0)
                dropped += 1
            waiting.append(index)
            index += 1
        elif move == "take" and waiting:
            frame = ring.take()
            assert frame is not None
            assert frame.index == waiting.pop(0)
            held.append(frame)
        elif move.startswith("release") and held:
            ring.release(held.pop(0 if "oldest" in move else -1))
        assert ring.dropped == dropped
        assert [int(f.luma.min()) for f in held] == [f.index % 256 for f in held]
        assert [int(f.chroma.max()) for f in held] == [f.index % 256 for f in held]


def test_slots_are_reused_and_follow_a_size_change() -> None:
    ring = FrameRing(2)
    addresses = set()
    for index in range(10):
        frame = write(ring, index, *((4, 6) if index < 6 else (5, 7)))
        addresses.add((frame.luma.shape, frame.luma.ctypes.data))
        taken = ring.take()
        assert taken is frame
        ring.release(frame)
    assert len(addresses) <= 4
    assert frame.luma.shape == (5, 7)
    assert frame.chroma.shape == (3, 4, 2)


def test_stop_wakes_a_waiting_writer() -> None:
    ring = FrameRing(2)
    write(ring, 0)
    write(ring, 1)
    ended = threading.Event()

    def blocked() -> None:
        with pytest.raises(RingClosed):
            ring.acquire(4, 6)
        ended.set()

    thread = threading.Thread(target=blocked)
    thread.start()
    ring.stop()
    thread.join(5)
    assert ended.is_set()


def test_the_writers_error_comes_after_the_frames_before_it() -> None:
    ring = FrameRing(3)
    write(ring, 0)
    ring.finish(OSError("the camera went away"))
    assert ring.take() is not None
    with pytest.raises(OSError, match="camera"):
        ring.take()


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="at least 2 slots"):
        FrameRing(1)
    ring = FrameRing(2)
    frame = write(ring, 0)
    ring.take()
    ring.release(frame)
    with pytest.raises(ValueError, match="released twice"):
        ring.release(frame)
    with pytest.raises(ValueError, match="publish without acquire"):
        ring.publish(frame)
