"""The file stream: source, ring, segmenter, overlay and sinks, with the heavy stages on threads."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Self

from cliprl.pipeline.core.buffers import FrameRing, Policy, RingClosed
from cliprl.pipeline.core.frame import Frame, FrameContext, Profiler, Stage, StatisticsRecorder
from cliprl.pipeline.core.interfaces import FrameOverlay, FrameSegmenter, OnFrame, Sink, Source, StreamInfo
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.statistics import Summary
from cliprl.pipeline.core.thread_policy import single_threaded, stage_workers
from cliprl.pipeline.sinks.base import SinkGroup
from cliprl.pipeline.stream import checks
from cliprl.pipeline.stream.pace import RealTimePace
from cliprl.pipeline.stream.scheduler import ContextSupply, SourceSupply, StageScheduler, Supply

# Slots of the ring: one being written, a few waiting, one at each stage. Four more slots make it no faster.
SLOTS = 10
# Seconds that the end of a stream waits for a source that is inside a read.
CLOSE_SECONDS = 5.0

StatusText = Callable[[Frame, Segmentation | None], str | None]


class Stream:
    """Runs a source through a segmenter and an overlay into sinks. A `VideoStream`.

    A frame passes these stages, in this order:

    1. "decode": the source writes it into a slot of the ring (on the thread "decode", if there are processors for it or
       the source may wait; otherwise as a part of stage 2).
    2. The stages of the segmenter; on the CPU "prepare", "encode" and "refine".
    3. "draw": the overlay draws the segmentation and the `status` line into the planes.
    4. "write": the sinks write it (on the thread that iterates over the stream).

    Stages 2 and 3 have a thread each if there are processors for them; otherwise a few workers and the iterating thread share
    them (see `StageScheduler`). Frames come out in the order of the source. Without a segmenter they have no segmentation,
    without an overlay nothing is drawn. `profiler` marks the stages for a profiler. Leaving the stream (a context manager)
    closes the source and the sinks, also after an error or `stop`, so that the written files can be read. `realtime`: a file
    is read at its own rate at most, for outputs that are watched meanwhile. interrupted: whether `stop` was called. A stream
    runs once, and resets the segmenter when it begins. Of the streams that share a segmenter one may run at a time.
    """

    def __init__(
        self,
        source: Source,
        segmenter: FrameSegmenter | None = None,
        overlay: FrameOverlay | None = None,
        sinks: Sequence[Sink] = (),
        *,
        status: StatusText | None = None,
        profiler: Profiler = nullcontext,
        description: str = "",
        realtime: bool = False,
    ) -> None:
        self.source, self.segmenter = checks.checked_parts(source, segmenter, sinks)
        self.overlay = overlay or (segmenter.default_overlay() if segmenter else None)
        self.sinks = SinkGroup(sinks)
        if self.overlay is not None and sinks:
            self.overlay.to_host = self.sinks.needs_planes
        self.recorder = StatisticsRecorder()
        self.description = description
        self._status, self._profiler = status, profiler
        policy: Policy = "drop-oldest" if source.info.live else "wait"
        self._ring = segmenter.ring(SLOTS, policy) if segmenter else FrameRing(SLOTS, policy)
        self._reader = threading.Thread(target=self._read, name="decode", daemon=True)
        stages = [*(segmenter.stages if segmenter else ()), Stage("draw", self._draw)]
        if policy != "wait":  # one item at a time: a frame that is displayed needs a processor for the rest of its way
            stages = [Stage(stage.name, stage.run) for stage in stages]
        waits = segmenter is not None and segmenter.waits_for_device
        workers = len(stages) if waits else stage_workers(len(stages))
        self._pace = RealTimePace() if realtime and not source.info.live else None
        self._has_reader = self._pace is not None or workers == len(stages) or source.waits
        supply: Supply[FrameContext] = ContextSupply(self._ring, profiler)
        supply = supply if self._has_reader else SourceSupply(self._ring, self._frames(), profiler)
        self._scheduler = StageScheduler(supply, stages, workers)
        self._threads = [*self._scheduler.threads, *([self._reader] if self._has_reader else ())]
        self.interrupted, self._iteration = False, checks.OneIteration()
        self._wanted: int | None = None

    def run(self, on_frame: OnFrame | None = None, *, frames: int | None = None) -> Summary:
        """Process the source to its end, or `frames` frames of it; `on_frame` is called with each written frame.

        Raises the error of a stage after the sinks were closed.
        """
        self._iteration.check_unused()
        checks.check_frame_count(frames)
        self._wanted = frames if self._ring.policy == "wait" else None
        with self:
            for frame, segmentation in self:
                if on_frame is not None:
                    on_frame(frame, segmentation)
                if self.recorder.frames == frames:
                    break
        return self.summary()

    def __iter__(self) -> Iterator[tuple[Frame, Segmentation | None]]:
        """Yield each written frame with its segmentation; its planes are reused as soon as the next one is requested.

        Iterate inside `with stream:`, whose end completes the outputs; until then they have their partial names.
        """
        return self._iteration.begin(self._results())

    def _results(self) -> checks.StreamResults:
        with single_threaded(), checks.in_use(self.segmenter):
            if self._has_reader:
                self._reader.start()
            self._scheduler.start()
            try:
                for context in self._scheduler:
                    self._write(context)
                    yield context.frame, context.segmentation
                    self._ring.release(context.frame)
            finally:
                self._end()

    def _read(self) -> None:
        """Decode frames into the ring until the source ends or the stream is stopped."""
        try:
            for frame in self._frames():
                if self._pace:
                    self._pace.wait(frame)
                self._ring.publish(frame)
            self._ring.finish()
        except BaseException as error:
            self._ring.finish(error)

    def _frames(self) -> Iterator[Frame]:
        """Yield decoded frames in slots of the ring until the source ends or the stream is stopped."""
        wanted = itertools.count() if self._wanted is None else range(self._wanted)
        with suppress(RingClosed):
            for _ in wanted:
                if (frame := self._decode()) is None:
                    return
                yield frame
            self._decode()  # one frame more than wanted shows whether the source ends there

    def _decode(self) -> Frame | None:
        # A live source mostly waits for its frames.
        if takes_turn := self._has_reader and self._ring.policy == "wait":
            self._ring.reserve()  # no processor is held while waiting for a slot
        with self._scheduler.processors if takes_turn else nullcontext(), self._profiler("decode"):
            start, waited = time.monotonic(), self._ring.waited
            frame = self.source.read(self._ring.acquire)
        if frame is not None:
            frame.mark("captured")
            frame.threads["decode"] = threading.current_thread().name
            frame.durations["decode"] = frame.times["captured"] - start - (self._ring.waited - waited)
        return frame

    def _draw(self, context: FrameContext) -> None:
        with context.stage("draw"):
            if self.overlay is not None:
                status = self._status(context.frame, context.segmentation) if self._status else None
                self.overlay.draw(context.frame, context.segmentation, status)

    def _write(self, context: FrameContext) -> None:
        with self._scheduler.processors, context.stage("write"):
            self.sinks.write(context.frame, context.segmentation)
        self.recorder.add(context.frame, context.segmentation)

    def _end(self) -> None:
        """End all threads. A thread whose source hangs inside a read is left behind."""
        if self._pace:
            self._pace.stop()
        self._ring.stop()
        self._scheduler.close()
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)

    def stop(self) -> None:
        """End early: decoded frames are finished, then the stream ends. May be called from any thread or a signal handler."""
        self.interrupted = True
        if self._pace:
            self._pace.stop()
        self._ring.stop()

    @property
    def info(self) -> StreamInfo:
        """Properties of the source."""
        return self.source.info

    @property
    def paced(self) -> bool:
        """Whether frames are processed at the rate of the source, so that the source limits the frame rate."""
        return self.info.live or (self._pace is not None and not self._pace.notes)

    @property
    def displays(self) -> bool:
        """Whether frames are displayed that outputs may lose."""
        return self.info.live

    @property
    def written(self) -> list[int]:
        """Number of frames written to each sink, in the order of the sinks."""
        return self.sinks.written

    def summary(self) -> Summary:
        """Return the statistics of the run so far."""
        notes = checks.notes_of_run(self.source, self.sinks, self.segmenter, self._pace, self.recorder)
        dropped, damaged = self._ring.dropped + self.source.skipped, self.source.damaged
        return self.recorder.summary(dropped=dropped, damaged=damaged, interrupted=self.interrupted, notes=notes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._iteration.end()
        try:
            self.sinks.__exit__(kind, error, trace)
        finally:
            if self.segmenter is not None:
                with suppress(*(() if kind is None else (Exception,))):  # after an error, that error is reported
                    self.segmenter.settle()
            # Closing a source inside a read would crash or hang.
            if not any(thread.is_alive() for thread in self._threads):
                self.source.close()
