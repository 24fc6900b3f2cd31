"""A thread that sends the newest frame to a segmenting worker process, and replaces the process when it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cliprl.pipeline.core.child_process import one_line
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.queues import Backoff, BoundedQueue
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live.follow_control import FollowControl
from cliprl.pipeline.live.segmentation.worker import SegmenterFactory, Worker, WorkerError, WorkerReply

# Seconds after which a worker counts as hanging; for slow frames, this multiple of the slowest recent one.
HANG, _SLOW_FACTOR = 1.0, 4.0
# Seconds for the very first frame.
_FIRST_FRAME = 20.0
# Decay of the slowest time per frame.
_DECAY = 0.9
# Seconds for a worker to get ready: it may have to compile the networks.
START_SECONDS = 300.0
# Consecutive failed frames after which a worker is replaced.
_FAILURES = 3
# Pauses in seconds between attempts to start a worker.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# Seconds between checks whether the thread is to end, while a worker starts.
_STEP = 0.1
# Seconds of segmentation after which a spare worker is started.
_SETTLED = 1.0


class NumberedSegmentation(NamedTuple):
    """The segmentation of frame `number`."""

    number: int
    segmentation: Segmentation


class SegmentationState(NamedTuple):
    """The newest result of segmentation.

    mask: None before the first, and from a failure until the next. reason: why there is no mask. faults: the number of
    failures, and `fault` the last one, in words.
    """

    mask: NumberedSegmentation | None = None
    reason: str = "segmentation is starting"
    faults: int = 0
    fault: str = ""


class Supervisor(threading.Thread):
    """Segments the newest offered frame in a worker process, whose segmenter `make_segmenter` makes.

    A spare worker is kept ready, so that a hang or a crash costs no start-up time. The display path never waits here:
    `offer` replaces the waiting frame, and `state` returns at once. `follow`: what viewers follow; None if nothing is tracked.
    """

    def __init__(
        self,
        make_segmenter: SegmenterFactory,
        classes: int,
        *,
        hang: float = HANG,
        follow: FollowControl | None = None,
    ) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.restarts, self.follow = 0, follow
        self._make_segmenter, self._classes, self._hang = make_segmenter, classes, hang
        self._changed = threading.Condition()
        self._queue: BoundedQueue[tuple[int, Frame]] = BoundedQueue(1)
        self._state = SegmentationState()
        self._worker: Worker | None = None
        self._spare: Worker | None = None
        self._failures = 0
        self._answered = 0
        self._slowest = 0.0

    @property
    def state(self) -> SegmentationState:
        """The newest result; the object itself never changes."""
        return self._state

    @property
    def pid(self) -> int | None:
        """The process ID of the active worker."""
        worker = self._worker
        return worker.pid if worker else None

    def offer(self, number: int, frame: Frame) -> None:
        """Let `frame` be segmented next, in place of one that waits. Its planes must not change any more."""
        self._queue.put((number, frame))

    def wait_for(self, number: int, timeout: float) -> SegmentationState:
        """Wait up to `timeout` seconds for the mask of frame `number`, and return the state."""
        with self._changed:
            self._changed.wait_for(lambda: (mask := self._state.mask) is not None and mask.number >= number, timeout)
            return self._state

    def forget(self) -> None:
        """Discard the mask and the waiting frame, because the next frame is unrelated."""
        self._queue.clear()
        with self._changed:
            reason = self._state.reason or "no frame of the new image has been segmented yet"
            self.set_state(self._state._replace(mask=None, reason=reason))

    def close(self) -> None:
        """End the processes and the thread."""
        self._queue.close()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Segment frames until `close`, and replace failed workers."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while not self._queue.closed:
            answered = self._answered
            try:
                self._serve()
            except Exception as error:  # the next worker may succeed, whatever the error
                self._replace(one_line(error))
            if self._answered > answered:
                backoff.reset()
            elif self._spare is None:
                self._queue.pause(backoff.next())
        for worker in (self._worker, self._spare):
            if worker:
                worker.close()

    def _serve(self) -> None:
        worker = self._worker = self._spare or Worker(self._make_segmenter)
        self._spare, self._failures, served = None, 0, time.monotonic()
        self._wait_until(
            lambda: worker.is_ready(_STEP), START_SECONDS - worker.age, "the segmenter does not become ready"
        )
        while (task := self._queue.get()) is not None:
            worker.segment(*task)
            sent = time.monotonic()
            limit = max(self._hang, _SLOW_FACTOR * self._slowest) if self._answered else _FIRST_FRAME
            self._wait_until(lambda: self._take(worker), limit, f"the segmenter has hung for {limit:.1f} s")
            self._slowest = max(time.monotonic() - sent, _DECAY * self._slowest)
            if self._spare is None and sent - served > _SETTLED:
                self._spare = Worker(self._make_segmenter)

    def _wait_until(self, done: Callable[[], bool], seconds: float, otherwise: str) -> None:
        limit = time.monotonic() + seconds
        while not self._queue.closed and not done():
            if time.monotonic() > limit:
                raise WorkerError(otherwise)

    def _take(self, worker: Worker) -> bool:
        answer = worker.answer(self._hang)
        if answer is None:
            return False
        problem = answer.error or find_fault(answer, self._classes)
        if problem:
            self._failures += 1
            self._set_failed(problem, problem)
            if self._failures >= _FAILURES:
                raise WorkerError(problem)
        elif answer.segmentation is not None:
            self._failures = 0
            self._answered += 1
            self.set_state(
                self._state._replace(mask=NumberedSegmentation(answer.number, answer.segmentation), reason="")
            )
        return True

    def _set_failed(self, fault: str, reason: str) -> None:
        self.set_state(SegmentationState(None, reason, self._state.faults + 1, fault))

    def set_state(self, state: SegmentationState) -> None:
        """Set the newest result, among whose instruments viewers choose."""
        with self._changed:
            if self.follow is not None:
                if state.mask is None:
                    self.follow.forget()
                else:
                    self.follow.update(state.mask.segmentation, self.restarts)
            self._state = state
            self._changed.notify_all()

    def _replace(self, problem: str) -> None:
        if self._queue.closed:
            return
        self.restarts += 1
        self._set_failed(problem, f"{problem}; restarting")
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()


def find_fault(answer: WorkerReply, classes: int) -> str:
    """Return what is wrong with an answer's segmentation, empty if nothing is."""
    segmentation = answer.segmentation
    if segmentation is None:
        return "the segmenter gave no mask"
    if not np.isfinite(segmentation.probabilities).all():
        return "the mask was not a number"
    labels = segmentation.labels
    if labels.shape != segmentation.probabilities.shape[1:] or int(labels.max(initial=0)) >= classes:
        return "the mask names classes that are not there"
    return ""
