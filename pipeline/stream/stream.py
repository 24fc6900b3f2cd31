"""The whole way of a frame: source, ring, segmenter, overlay, sinks, with a thread for each heavy part."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import Sink, Source
from cliprl.pipeline.core.opencv_threads import single_threaded
from cliprl.pipeline.core.ring_buffer import FrameRing, Policy, RingClosed
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.core.thread_policy import stage_workers
from cliprl.pipeline.overlay.overlay import Overlay, Style
from cliprl.pipeline.segment.segmenter import Parts, Segmenter
from cliprl.pipeline.sinks.group import SinkGroup
from cliprl.pipeline.stream.scheduler import StageScheduler, Work
from cliprl.pipeline.stream.statistics import StatisticsRecorder, Summary

# Slots of the ring: one being written, a few waiting, one with each stage behind. With four more it is no faster.
SLOTS = 10
# How long the end of a stream waits for a source that is inside a read.
PATIENCE = 5.0

Result = tuple[Frame, Segmentation | None]
Status = Callable[[Frame, Segmentation | None], str | None]


class Stream:
    """Runs a source through a segmenter and an overlay into sinks.

    Decoding has a thread, and so have each part of the segmenter and drawing where there are processors for them; where there
    are not, few workers and the iterating thread share them (see `StageScheduler`). Frames come out in the
    order of the source. Without a segmenter they pass unsegmented, without an overlay unpainted. `status` writes the
    overlay's status line, on any of these threads. Leaving the stream (a context manager) closes the source and the sinks, also
    after an error or `stop`, so that what was written can be read.
    """

    def __init__(
        self,
        source: Source,
        segmenter: Segmenter | None = None,
        overlay: Overlay | None = None,
        sinks: Sequence[Sink] = (),
        *,
        status: Status | None = None,
    ) -> None:
        self.source = source
        self.segmenter = segmenter
        self.overlay = overlay
        if overlay is None and segmenter is not None and segmenter.works_on != "cpu":
            # It is the overlay that brings to the host what was decoded elsewhere: here one that paints nothing.
            self.overlay = segmenter.device.overlay(segmenter.classes, Style(opacity=0))
        if self.overlay is not None and sinks:
            self.overlay.to_host = any(getattr(sink, "takes_pictures", True) for sink in sinks)
        self.sinks = SinkGroup(sinks)
        self.recorder = StatisticsRecorder()
        self._status = status
        policy: Policy = "drop-oldest" if source.info.live else "wait"
        self._ring = segmenter.device.ring(SLOTS, policy) if segmenter else FrameRing(SLOTS, policy)
        self._reader = threading.Thread(target=self._read, name="decode", daemon=True)
        works = self._works()
        self._stages: StageScheduler[Result] = StageScheduler(self._ring, works, self._workers(len(works)))
        self._interrupted = False

    def run(
        self, on_frame: Callable[[Frame, Segmentation | None], None] | None = None, *, frames: int | None = None
    ) -> Summary:
        """Process the source to its end, or `frames` frames of it. `on_frame` is called with each frame that was written.

        Raises what a stage raised, after the sinks were closed.
        """
        with self:
            for frame, segmentation in self:
                if on_frame is not None:
                    on_frame(frame, segmentation)
                if self.recorder.frames == frames:
                    break
        return self.summary()

    def __iter__(self) -> Iterator[Result]:
        """Each frame with its segmentation, after it was drawn and written; its planes are reused at the next."""
        with single_threaded():
            self._start()
            try:
                for frame, segmentation in self._stages:
                    self._write(frame, segmentation)
                    yield frame, segmentation
                    self._ring.release(frame)
            finally:
                self._end()

    def stop(self) -> None:
        """End early: frames already decoded are finished, then the stream ends. May be called from any thread or a signal."""
        self._interrupted = True
        self._ring.stop()

    def summary(self) -> Summary:
        """Figures of the run so far."""
        notes = [*self.source.info.notes, *self.sinks.notes, *self._hurried()]
        dropped, damaged = self._ring.dropped + getattr(self.source, "skipped", 0), self.source.damaged
        return self.recorder.summary(dropped=dropped, damaged=damaged, interrupted=self._interrupted, notes=notes)

    def _hurried(self) -> list[str]:
        """What is to be said of a budget that leaves no time for refinement."""
        segmenter, recorder = self.segmenter, self.recorder
        if (
            segmenter is None
            or segmenter.budget is None
            or not segmenter.steps
            or not recorder.segmented
            or recorder.steps
        ):
            return []
        return [f"a budget of {segmenter.budget * 1000:g} ms is gone before refinement: every mask is the base's"]

    def _read(self) -> None:
        try:
            while (frame := self._timed_read()) is not None:
                self._ring.publish(frame)
            self._ring.finish()
        except RingClosed:
            self._ring.finish()
        except BaseException as error:
            self._ring.finish(error)

    def _timed_read(self) -> Frame | None:
        start = time.monotonic()
        waited = self._ring.waited
        with Frame.ranges("decode"):
            frame = self.source.read(self._ring.acquire)
        if frame is not None:
            frame.mark("captured")
            frame.threads["decode"] = self._reader.name
            frame.durations["decode"] = frame.times["captured"] - start - (self._ring.waited - waited)
        return frame

    def _start(self) -> None:
        self._reader.start()
        self._stages.start()

    def _end(self) -> None:
        """See all threads out, whatever they are at. A read that hangs is left behind."""
        self._ring.stop()
        self._stages.close()
        for thread in (*self._stages.threads, self._reader):
            thread.join(PATIENCE)

    def _works(self) -> list[Work]:
        """What is done to a frame between its decoding and its writing."""
        parts: Parts = [*(self.segmenter.parts if self.segmenter else ()), ("draw", self._draw)]
        return [(name, partial(_done if i else _begun, work)) for i, (name, work) in enumerate(parts)]

    def _workers(self, stages: int) -> int:
        """As many as there are stages where these wait for a device, elsewhere as many as find a processor."""
        waits = self.segmenter is not None and self.segmenter.works_on != "cpu"
        return stages if waits else stage_workers(stages)

    def _draw(self, frame: Frame, segmentation: Segmentation | None) -> Segmentation | None:
        with frame.stage("draw"):
            if self.overlay is not None:
                self.overlay.draw(frame, segmentation, self._status(frame, segmentation) if self._status else None)
        return segmentation

    def _write(self, frame: Frame, segmentation: Segmentation | None) -> None:
        with frame.stage("write"):
            self.sinks.write(frame, segmentation)
        self.recorder.add(frame, segmentation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sinks.__exit__(kind, error, trace)
        finally:
            if self.segmenter is not None:
                with suppress(*(() if kind is None else (Exception,))):  # after an error, that one is to be told
                    self.segmenter.device.settle()
            if not self._reader.is_alive():  # a source can't be closed under a read that hangs
                self.source.close()


def _begun(work: Callable[[Frame, None], Any], frame: Frame) -> tuple[Frame, Any]:
    return frame, work(frame, None)


def _done(work: Callable[[Frame, Any], Any], item: tuple[Frame, Any]) -> tuple[Frame, Any]:
    frame, before = item
    return frame, work(frame, before)
