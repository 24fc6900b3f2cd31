"""The whole way of a frame, on a scene that the program renders itself, and how it ends when a part of it fails."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import cv2
import numpy as np
import pytest

from cliprl.engines import CliprlError, CompiledBundle, UsageError
from cliprl.pipeline import (
    Frame,
    FrameContext,
    OutputSpec,
    Overlay,
    Segmentation,
    Segmenter,
    Stream,
    StreamInfo,
    Style,
    frame_of_image,
    image_of_frame,
    open_sink,
    open_source,
)
from cliprl.pipeline.core import thread_policy
from cliprl.pipeline.core.interfaces import PlaneAllocator
from cliprl.pipeline.sources.base import FrameSource
from cliprl.pipeline.tracking.segmenter import TrackingSegmenter

DEMO = "demo:?seconds=1&size=320x256&rate=25"


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter("small")


class Numbers(FrameSource):
    """A source whose frames carry their number in every sample."""

    def __init__(self, count: int, *, live: bool = False, fail_at: int | None = None) -> None:
        super().__init__(StreamInfo("numbers", 64, 96, Fraction(1, 1000), Fraction(25), count, live=live))
        self._count, self._next, self._fail_at = count, 0, fail_at

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        if self._next == self._fail_at:
            raise CliprlError("numbers: the file ends in the middle of a frame")
        if self._next == self._count:
            return None
        luma, chroma = allocate(64, 96)
        luma[:], chroma[:] = self._next % 200, 128
        frame = Frame(luma, chroma, self._next * 41, Fraction(1, 1000), self._next)
        self._next += 1
        return frame


class Collector:
    """A sink that notes what it is given, and may be slow or fail."""

    def __init__(self, *, fail_at: int | None = None, seconds: float = 0.0) -> None:
        self.pts: list[int] = []
        self.values: list[int] = []
        self.closed = 0
        self._fail_at, self._seconds = fail_at, seconds

    def write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        if len(self.pts) == self._fail_at:
            raise CliprlError("disk full: free some space")
        time.sleep(self._seconds)
        self.pts.append(frame.pts)
        self.values.append(int(frame.luma[0, 0]))

    def close(self) -> None:
        self.closed += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def stage_threads() -> list[str]:
    """Threads of a stream that are still alive."""
    stages = {"decode", "prepare", "encode", "refine", "draw"}
    return [t.name for t in threading.enumerate() if t.name in stages or t.name.startswith("worker ")]


def test_every_frame_comes_out_in_order_with_its_own_time() -> None:
    source, sink = Numbers(300), Collector()
    summary = Stream(source, sinks=[sink]).run()
    assert sink.pts == [n * 41 for n in range(300)]
    assert sink.values == [n % 200 for n in range(300)]
    assert (summary.frames, summary.dropped, summary.interrupted) == (300, 0, False)
    assert source.closed
    assert sink.closed
    assert not stage_threads()


def test_the_demo_is_segmented_and_painted(segmenter: Segmenter) -> None:
    with open_source(DEMO) as source:
        raw = {f.index: f.luma.copy() for f in source}
    seen: list[Segmentation] = []
    painted = 0

    def look(frame: Frame, segmentation: Segmentation | None) -> None:
        nonlocal painted
        assert segmentation is not None
        seen.append(segmentation)
        painted += not np.array_equal(frame.luma, raw[frame.index])

    summary = Stream(open_source(DEMO), segmenter, Overlay(segmenter.classes, Style())).run(look)
    assert summary.frames == len(raw) == len(seen) == 25
    assert painted == 25
    assert all(s.probabilities.shape[0] == len(segmenter.classes) for s in seen)
    assert all(np.allclose(s.probabilities.sum(0), 1, atol=1e-3) for s in seen)
    assert summary.latency["encode"].p50 > 0
    assert summary.mean_steps <= segmenter.steps


def test_separate_threads_find_what_one_thread_finds() -> None:
    """A picture, features or a prior that the next frame overwrote too early would show."""
    scene = "demo:?seconds=2&size=320x256&rate=25"
    alone, together = Segmenter("small"), Segmenter("small")
    with open_source(scene) as source:
        expected = [alone(frame) for frame in source]
    seen: list[Segmentation] = []

    def look(frame: Frame, segmentation: Segmentation | None) -> None:
        assert segmentation is not None
        seen.append(segmentation)
        if frame.index % 7 == 3:
            time.sleep(0.05)  # everything behind waits, everything before runs ahead as far as it may

    Stream(open_source(scene), together).run(look)
    assert len(seen) == len(expected) == 50
    for one, other in zip(seen, expected, strict=True):
        assert one.view == other.view
        assert one.steps == other.steps
        np.testing.assert_array_equal(one.probabilities, other.probabilities)


def test_opencv_has_no_threads_of_its_own_within_a_stream() -> None:
    before, within = cv2.getNumThreads(), list[int]()
    inner = Stream(Numbers(2), sinks=[Collector()])

    def look(frame: Frame, segmentation: Segmentation | None) -> None:
        if frame.index == 1:
            inner.run(lambda *_: within.append(cv2.getNumThreads()))
        within.append(cv2.getNumThreads())

    Stream(Numbers(3), sinks=[Collector()]).run(look)
    assert within == [1] * 5
    assert cv2.getNumThreads() == before
    if before > 1:
        with pytest.raises(CliprlError, match="disk full"):
            Stream(Numbers(9), sinks=[Collector(fail_at=3)]).run()
        assert cv2.getNumThreads() == before


def test_no_more_threads_compute_than_there_are_processors(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*values: Any) -> Any:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.004)
            try:
                return call(*values)
            finally:
                with lock:
                    now -= 1

        return run

    monkeypatch.setattr(thread_policy, "available_cpus", lambda: 2)
    for owner, name in ((Numbers, "_read"), (Segmenter, "prepare"), (Collector, "write")):
        monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
    segmenter.reset()
    sink = Collector()
    assert Stream(Numbers(20), segmenter, sinks=[sink]).run().frames == 20
    assert sink.values == list(range(20))
    assert most == 2


@pytest.mark.parametrize("processors", [2, 16])
def test_two_processors_read_a_file_without_a_thread_for_it(
    processors: int, segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_source(DEMO) as demo, open_sink(tmp_path / "in.mp4", OutputSpec(demo.info, ())) as sink:
        for frame in demo:
            sink.write(frame, None)
    monkeypatch.setattr(thread_policy, "available_cpus", lambda: processors)
    threads, started, names = set[str](), threading.active_count(), list[int]()

    def look(frame: Frame, segmentation: Segmentation | None) -> None:
        threads.add(frame.threads["decode"])
        names.append(threading.active_count() - started)

    segmenter.reset()
    stream = Stream(open_source(tmp_path / "in.mp4"), segmenter, sinks=[Collector()])
    summary = stream.run(look, frames=20)
    assert (summary.frames, summary.dropped, stream.source.closed) == (20, 0, True)
    if processors == 2:
        assert threads <= {"worker 1", threading.current_thread().name}
        assert max(names) == 1
    else:
        assert threads == {"decode"}
    assert not stage_threads()


def test_a_live_source_loses_the_oldest_frames_and_says_so() -> None:
    sink = Collector(seconds=0.01)
    summary = Stream(Numbers(200, live=True), sinks=[sink]).run()
    assert summary.dropped > 0
    assert summary.frames + summary.dropped == 200
    assert sink.pts == sorted(sink.pts)
    assert sink.pts[-1] == 199 * 41


def test_a_source_that_fails_gives_what_it_had() -> None:
    sink = Collector()
    with pytest.raises(CliprlError, match="middle of a frame"):
        Stream(Numbers(100, fail_at=40), sinks=[sink]).run()
    assert len(sink.pts) == 40
    assert sink.closed
    assert not stage_threads()


def test_failing_sink_ends_the_run_and_others_are_closed() -> None:
    good, bad, source = Collector(), Collector(fail_at=10), Numbers(100)
    with pytest.raises(CliprlError, match="disk full"):
        Stream(source, sinks=[good, bad]).run()
    assert good.closed
    assert bad.closed
    assert source.closed
    assert not stage_threads()


def test_a_segmenter_that_fails_ends_the_run(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    whole = Segmenter.encode

    def fragile(self: Segmenter, context: FrameContext) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise CliprlError("the engine gave NaN")
        whole(self, context)

    monkeypatch.setattr(Segmenter, "encode", fragile)
    sink = Collector()
    with pytest.raises(CliprlError, match="NaN"):
        Stream(Numbers(100), segmenter, sinks=[sink]).run()
    assert len(sink.pts) == 6
    assert sink.closed
    assert not stage_threads()


def test_stop_finishes_what_was_decoded() -> None:
    sink = Collector()
    stream = Stream(Numbers(100_000), sinks=[sink])
    summary = stream.run(lambda frame, _: stream.stop() if frame.index == 20 else None)
    assert summary.interrupted
    assert 21 <= summary.frames < 100
    assert sink.pts == [n * 41 for n in range(summary.frames)]
    assert not stage_threads()


def test_a_stream_that_ran_keeps_its_outputs(tmp_path: Path) -> None:
    source = Numbers(3)
    stream = Stream(source, sinks=[open_sink(tmp_path / "a.mp4", OutputSpec(source.info, ()))])
    assert stream.run().frames == 3
    written = (tmp_path / "a.mp4").read_bytes()
    for again in (stream.run, lambda: next(iter(stream))):
        with pytest.raises(UsageError, match="a Stream runs once: make another one"):
            again()
    assert (tmp_path / "a.mp4").read_bytes() == written
    assert stream.summary().frames == 3


def test_a_number_of_frames_can_be_asked_for() -> None:
    sink, source = Collector(seconds=0.002), Numbers(100)
    assert Stream(source, sinks=[sink]).run(frames=12).frames == 12
    assert len(sink.pts) == 12
    assert source._next <= 13  # no frame is decoded for nothing
    assert not stage_threads()


def test_negative_numbers_are_refused_with_the_remedy() -> None:
    sink, wrong = Collector(), list[Any]([-1, 2.5, "3"])
    for frames in wrong:
        with pytest.raises(
            UsageError, match=f"frames {frames!r} is not a number of frames: give 0 or more, or leave it"
        ):
            Stream(Numbers(3), sinks=[sink]).run(frames=frames)
    assert not sink.pts
    with pytest.raises(UsageError, match="threads -1 is negative: give the CPU threads of the networks, or 0"):
        Segmenter("small", threads=-1)


def test_steps_zero_is_the_base_and_more_steps_change_it() -> None:
    """In the dark, on a noisy sensor: on clear frames the shipped policy has little to do."""
    base, refined = Segmenter("small", steps=0), Segmenter("small", steps=3)
    changed, rng = 0, np.random.default_rng(0)
    for seed in range(800_000, 800_010):
        with open_source(f"demo:?seconds=0.04&size=320x256&seed={seed}") as source:
            for frame in source:
                dark = 0.15 * frame.luma + rng.normal(0, 15, frame.luma.shape)
                frame.luma[...] = np.clip(dark, 0, 255).astype(np.uint8)
                before, after = base(frame), refined(frame)
                assert before.steps == 0
                assert after.steps >= 1
                changed += not np.array_equal(before.labels, after.labels)
    assert changed


def test_a_tight_budget_drops_steps_not_frames() -> None:
    segmenter = Segmenter("small", budget_ms=0.1)
    summary = Stream(open_source(DEMO), segmenter).run()
    assert any("budget of 0.1 ms is gone before refinement" in note for note in summary.notes)
    assert summary.frames == 25
    assert summary.mean_steps < 0.2


def test_the_five_line_example_of_the_readme(tmp_path: Path) -> None:
    segmenter, source = Segmenter("small"), open_source("demo:?seconds=0.4&size=320x256")
    sink = open_sink(str(tmp_path / "overlay.mp4"), OutputSpec(source.info, segmenter.classes))
    summary = Stream(source, segmenter, Overlay(segmenter.classes), [sink]).run()
    assert summary.frames == 10
    assert (tmp_path / "overlay.mp4").stat().st_size > 1000


def test_first_error_is_raised_where_sinks_fail_later_too() -> None:
    class Broken(Collector):
        def close(self) -> None:
            super().close()
            raise RuntimeError("the lid is stuck")

    sink = Broken(fail_at=3)
    with pytest.raises(CliprlError, match="disk full") as error:
        Stream(Numbers(9), sinks=[sink]).run()
    assert error.value.__notes__ == ["Broken failed at its end: RuntimeError('the lid is stuck')"]
    assert sink.closed == 1
    with pytest.raises(CliprlError, match="Broken failed at its end"):
        Stream(Numbers(9), sinks=[Broken()]).run()


def test_a_stop_iteration_in_a_source_is_no_end() -> None:
    class Exhausted(Numbers):
        def _read(self, allocate: PlaneAllocator) -> Frame | None:
            return next(iter(())) if self._next == 3 else super()._read(allocate)

    sink = Collector()
    with pytest.raises(RuntimeError, match="StopIteration"):
        Stream(Exhausted(9), sinks=[sink]).run()
    assert sink.values == [0, 1, 2]


def test_a_segmenter_begins_anew_and_serves_one_stream(segmenter: Segmenter) -> None:
    """The last frame of one video would be the prior of the next one's first, and its instruments would be known."""
    tracking, runs = TrackingSegmenter(segmenter, segmenter.classes), list[list[Segmentation]]()
    for _ in range(2):
        with Stream(open_source("demo:?seconds=0.2&size=320x256&rate=25"), tracking) as stream:
            runs.append([seen for _, seen in stream if seen is not None])
    for one, again in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.probabilities, again.probabilities)
        assert one.instances is not None
        assert again.instances is not None
        np.testing.assert_array_equal(one.instances.ids, again.instances.ids)
    assert any(seen.instances and seen.instances.items for seen in runs[0])
    again = TrackingSegmenter(segmenter, segmenter.classes)
    for first, other in ((segmenter, segmenter), (tracking, segmenter), (segmenter, tracking), (tracking, again)):
        second = Stream(Numbers(2), other)
        with pytest.raises(UsageError, match="in use by another stream"):
            Stream(Numbers(2), first).run(lambda *_, second=second: print(second.run()))
        assert Stream(Numbers(2), other).run().frames == 2


def test_leaving_a_stream_ends_an_iteration_that_is_kept(segmenter: Segmenter) -> None:
    source = Numbers(30)
    with Stream(source, segmenter) as stream:
        frames = iter(stream)
        next(frames)
    assert source.closed
    assert not [thread for thread in stream._threads if thread.is_alive()]
    assert Stream(Numbers(2), segmenter).run(frames=np.int64(1)).frames == 1  # type: ignore[arg-type]
    assert next(frames, None) is None


@pytest.mark.parametrize(
    ("luma", "chroma"),
    [
        (np.zeros((8, 8), np.uint16), np.zeros((4, 4, 2), np.uint8)),
        (np.zeros((8, 8), np.float32), np.zeros((4, 4, 2), np.float32)),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 2), np.uint8)),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((4, 4, 2), np.uint8)),
        (np.zeros((0, 8), np.uint8), np.zeros((0, 4, 2), np.uint8)),
    ],
)
def test_planes_of_another_form_are_refused(luma: Any, chroma: Any) -> None:
    with pytest.raises(UsageError, match=re.escape(f"luma {luma.dtype} {luma.shape} and chroma {chroma.dtype}")):
        Frame(luma, chroma, 0, Fraction(1, 25), 0)


@pytest.mark.parametrize("shape", [(48, 64), (47, 61)])
def test_a_painted_frame_is_an_image_again(shape: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([3 * columns, 4 * rows, 255 - 2 * columns - 2 * rows], -1).astype(np.uint8)
    frame = frame_of_image(image)
    again = image_of_frame(frame)
    assert again.flags.c_contiguous
    assert np.abs(again.astype(int) - image).max() <= 8
    frame.luma[: shape[0] // 2] = 235
    assert image_of_frame(frame)[: shape[0] // 2].mean() > again[: shape[0] // 2].mean() + 40
    frame.rotation = 90
    assert image_of_frame(frame).shape == (shape[1], shape[0], 3)


def test_parts_of_another_kind_are_named(segmenter: Segmenter) -> None:
    wrong: Any = "operation.mp4"
    for parts, text in (
        ((wrong,), "a str is no source: give one of open_source"),
        ((iter([]),), "a list_iterator is no source"),
        ((SimpleNamespace(info=None, read=None, close=None),), "a SimpleNamespace is no source: .* or a FrameSource"),
        ((Numbers(1), wrong), "a str is no segmenter: give a Segmenter"),
        ((Numbers(1), None, None, Collector()), "sinks is a Collector: give a list of sinks"),
    ):
        with pytest.raises(UsageError, match=text):
            Stream(*parts)
    for call in (segmenter, TrackingSegmenter(segmenter, segmenter.classes), image_of_frame):
        with pytest.raises(UsageError, match=r"a ndarray is no frame: give one of a source, or frame_of_image"):
            call(np.zeros((64, 80, 3), np.uint8))  # type: ignore[arg-type]
    black: Any = np.zeros((64, 80, 3), np.uint8)
    for rate in (0, -25, float("nan"), "25"):
        with pytest.raises(UsageError, match="is none of video"):
            frame_of_image(black, rate=rate)  # type: ignore[arg-type]
    assert type(frame_of_image(black, np.int64(3)).index) is int  # type: ignore[arg-type]
    for numpy_rate in (np.int64(25), np.float32(25)):
        assert type(frame_of_image(black, rate=numpy_rate).time_base.denominator) is int  # type: ignore[arg-type]
    for index in (0.5, -1):
        with pytest.raises(UsageError, match=f"index {index} is no whole number"):
            frame_of_image(black, index)  # type: ignore[arg-type]
    for given in (0, None, black, [wrong]):
        with pytest.raises(UsageError, match=r"the input is a .*: give a path or an address as text; a camera is"):
            open_source(given)
    info = StreamInfo("x", 64, 80, Fraction(1, 25))
    for target, spec in ((0, OutputSpec(info, ())), ("null:", info), ("null:", OutputSpec(segmenter.classes, info))):  # type: ignore[arg-type]
        with pytest.raises(
            UsageError, match=r"open_sink was given a .* and a .*: give it a path .* OutputSpec\(source\.info"
        ):
            open_sink(target, spec)  # type: ignore[arg-type]
    assert frame_of_image(black, rate=29.97).time_base == Fraction(100, 2997)
    engines = CompiledBundle(segmenter._encoder, segmenter._encoder, {})
    with pytest.raises(UsageError, match=r"engines take 'text' of \(12, 128\), and the bundle has \(13, 128\)"):
        Segmenter("small", engines=engines, prompts=["grasper"])
