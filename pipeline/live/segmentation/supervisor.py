"""Keeps segmentation going beside the picture: hands the newest frame to a process, and replaces it when it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.segmentation import Segmentation
from cliprl.pipeline.live.segmentation.worker import Worker, WorkerError
from cliprl.pipeline.live.segmentation.worker_process import Answer, Make, one_line

# Seconds a frame may take before the process counts as hanging; where frames take long, so many times what they took.
HANG, _SLOW = 1.0, 4.0
# Seconds that the very first may take.
_FIRST = 20.0
# How fast a slow moment is forgotten, a frame.
_FORGET = 0.9
# Seconds a process may take to get ready: the networks may have to be compiled first.
START = 300.0
# So many frames in a row may fail before the process is replaced.
_FAILURES = 3
# Seconds between attempts while none comes up; doubled each time.
_PAUSES = (0.2, 5.0)
# A spare is started once segmentation has run for so many seconds.
_SETTLED = 1.0


class Mask(NamedTuple):
    """What was seen in frame `number`."""

    number: int
    segmentation: Segmentation


class SegmentationState(NamedTuple):
    """What has become of segmentation so far.

    mask: the newest; None before the first, and from a failure until the next. reason: why there is none. faults: failures so
    far, and `fault`: what the last one was.
    """

    mask: Mask | None = None
    reason: str = "segmentation is starting"
    faults: int = 0
    fault: str = ""


class Supervisor(threading.Thread):
    """Segments the newest frame offered, over and over, in a process that `make` equips. See `Mask`.

    A spare process waits beside the working one, so that a hang or a death costs no start-up. Nothing here is ever waited for
    by the display path: `offer` replaces the frame that waits, `outcome` is what there is.
    """

    def __init__(self, make: Make, classes: int, *, hang: float = HANG) -> None:
        super().__init__(name="supervisor", daemon=True)
        self.restarts = 0
        self._make, self._classes, self._hang = make, classes, hang
        self._changed = threading.Condition()
        self._waiting: tuple[int, Frame] | None = None
        self._outcome = SegmentationState()
        self._closed = False
        self._worker: Worker | None = None
        self._spare: Worker | None = None
        self._failures = 0
        self._answered = 0
        self._slowest = 0.0

    @property
    def outcome(self) -> SegmentationState:
        """What has become of segmentation so far; the object itself never changes."""
        return self._outcome

    @property
    def pid(self) -> int | None:
        """The working process's number."""
        worker = self._worker
        return worker.pid if worker else None

    def offer(self, number: int, frame: Frame) -> None:
        """Ask for `frame` to be segmented next, in place of one that still waits. It must not be written any more."""
        with self._changed:
            self._waiting = (number, frame)
            self._changed.notify_all()

    def wait_for(self, number: int, timeout: float) -> SegmentationState:
        """The outcome, as soon as its mask is of frame `number`, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: (mask := self._outcome.mask) is not None and mask.number >= number, timeout)
            return self._outcome

    def forget(self) -> None:
        """What was seen so far belongs to another picture."""
        with self._changed:
            reason = self._outcome.reason or "nothing of the new picture has been segmented yet"
            self._waiting, self._outcome = None, self._outcome._replace(mask=None, reason=reason)

    def close(self) -> None:
        """End the processes and the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """The thread's body."""
        pause = _PAUSES[0]
        while not self._closed:
            answered = self._answered
            try:
                self._serve()
            except Exception as error:  # whatever it is, the picture goes on and the next process may do better
                self._fail(one_line(error))
            pause = _PAUSES[0] if self._answered > answered else min(2 * pause, _PAUSES[1])
            self._rest(0 if self._spare or self._answered > answered else pause)
        for worker in (self._worker, self._spare):
            if worker:
                worker.close()

    def _serve(self) -> None:
        worker = self._worker = self._spare or Worker(self._make)
        self._spare, self._failures, served = None, 0, time.monotonic()
        self._until(lambda: worker.is_ready(1.0), START - worker.age, "the segmenter does not get ready")
        while (task := self._next()) is not None:
            worker.send(*task)
            sent = time.monotonic()
            limit = max(self._hang, _SLOW * self._slowest) if self._answered else _FIRST
            self._until(lambda: self._take(worker), limit, f"the segmenter has hung for {limit:.1f} s")
            self._slowest = max(time.monotonic() - sent, _FORGET * self._slowest)
            if self._spare is None and sent - served > _SETTLED:
                self._spare = Worker(self._make)

    def _next(self) -> tuple[int, Frame] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            task, self._waiting = self._waiting, None
            return None if self._closed else task

    def _until(self, done: Callable[[], bool], seconds: float, otherwise: str) -> None:
        limit = time.monotonic() + seconds
        while not self._closed and not done():
            if time.monotonic() > limit:
                raise WorkerError(otherwise)

    def _take(self, worker: Worker) -> bool:
        answer = worker.answer(self._hang)
        if answer is None:
            return False
        problem = answer.error or _flaw(answer, self._classes)
        if problem:
            self._failures += 1
            self._failed(problem, problem)
            if self._failures >= _FAILURES:
                raise WorkerError(problem)
        elif answer.segmentation is not None:
            self._failures = 0
            self._answered += 1
            self.tell(self._outcome._replace(mask=Mask(answer.number, answer.segmentation), reason=""))
        return True

    def _failed(self, fault: str, reason: str) -> None:
        self.tell(SegmentationState(None, reason, self._outcome.faults + 1, fault))

    def tell(self, outcome: SegmentationState) -> None:
        """Let this be the outcome."""
        with self._changed:
            self._outcome = outcome
            self._changed.notify_all()

    def _fail(self, problem: str) -> None:
        if self._closed:
            return
        self.restarts += 1
        self._failed(problem, f"{problem}; restarting")
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()

    def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError), self._changed:
            self._changed.wait_for(lambda: self._closed, seconds)


def _flaw(answer: Answer, classes: int) -> str:
    """What is wrong with a segmentation, in words; empty where nothing is."""
    seen = answer.segmentation
    if seen is None:
        return "the segmenter gave no mask"
    if not np.isfinite(seen.probabilities).all():
        return "the mask was not a number"
    if seen.labels.shape != seen.probabilities.shape[1:] or int(seen.labels.max(initial=0)) >= classes:
        return "the mask names classes that are not there"
    return ""
