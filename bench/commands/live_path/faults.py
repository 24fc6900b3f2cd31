"""`cliprl-bench faults`: the displayed video while segmentation fails, the camera stalls, or the CPU is overloaded.

A clip runs through the live path at a camera's rate. Faults are injected into the segmenting process, one after the other: it
raises, hangs for five seconds, returns NaN masks, is killed. Every displayed frame is recorded.
"""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from cliprl.bench.commands.live_path import overload
from cliprl.bench.commands.live_path.overload import OverloadRun
from cliprl.bench.fixtures.looped_source import PacedSource
from cliprl.bench.harness.registry import TIMING_OPTIONS, measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction
from cliprl.engines import ClassSpec, CliprlError, open_bundle
from cliprl.pipeline import Frame, Overlay, Segmentation, Segmenter
from cliprl.pipeline.core.interfaces import PlaneAllocator
from cliprl.pipeline.live.broadcast import Freshness, SourceState
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.segmentation.worker import SegmenterFactory, SegmentFunction
from cliprl.pipeline.live.stream import LiveStream

RATE = 25
# Each fault, and a part of the message on the displayed frame.
FAULTS = {"raises": "planted", "hangs for 5 s": "has hung", "masks are NaN": "not a number", "is killed": "signal 9"}
_ALL = "all faults"
NO_FAULT, CAMERA_STALL = "no fault", "camera stalls for 3 s"
_HANG, _STALL = 5.0, 3.0
# Name of the fault's file after the fault; its time is by the monotonic clock, which all processes share.
_STRUCK = "struck"
# Limits: relative deviation of the frame rate, seconds until masks are back, milliseconds until a stall is marked.
RATE_TOLERANCE, RECOVERY, STALL_MARK = 0.05, 2.0, 500.0
# Seconds until the first mask, and until a spare process is ready after a fault.
_FIRST, _SPARE = 120.0, 4.0
METHOD = {
    "includes": f"a clip repeated at {RATE} FPS through the live path, segmenter in its own process, no viewer",
    "frame rate": "camera frames displayed a second, from the injection of the fault on, over the seconds of a round",
    "back": "seconds from the fault to the first displayed frame with the mask of a frame that was captured after it",
    overload.CASE: f"a camera over TCP, read, segmented and displayed with {overload.RUNNING_SHARE:.0%} of one processor; "
    "true age from "
    "a time code in the frame, until the last frame displayed after the camera has hung up",
    "promised": f"frame rate within {RATE_TOLERANCE:.0%} of the camera's, masks back in {RECOVERY:g} s, a stall marked in "
    f"{STALL_MARK:g} ms; no frame older than {overload.OLD:g} s called live, the latency shown correct to {overload.EXACT:g} ms",
}


@dataclass(frozen=True, slots=True)
class FaultySegmenter:
    """Makes the segmenter of `make_segmenter`; a file in `folder` with the name of a fault causes that fault once."""

    make_segmenter: SegmenterFactory
    folder: Path

    def __call__(self) -> Callable[[Frame], Segmentation]:
        """Called in the segmenting process."""
        return partial(_segment, self.make_segmenter(), self.folder)


def _segment(segmenter: SegmentFunction, folder: Path, frame: Frame) -> Segmentation:
    planted = next((name for name in FAULTS if (folder / name).exists()), None)
    if planted is not None:
        (folder / planted).rename(folder / _STRUCK)
        os.utime(folder / _STRUCK, ns=2 * (time.monotonic_ns(),))
    if planted == "raises":
        raise RuntimeError("planted")
    if planted == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if planted == "hangs for 5 s":
        time.sleep(_HANG)
    seen = segmenter(frame)
    return replace(seen, probabilities=np.full_like(seen.probabilities, np.nan)) if planted == "masks are NaN" else seen


class StallingSource(PacedSource):
    """A camera without frames before the moment `silent_until`."""

    silent_until = 0.0

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        time.sleep(max(self.silent_until - time.monotonic(), 0.0))
        return super()._read(allocate)


@dataclass(frozen=True, slots=True)
class DisplayRecord:
    """A displayed camera frame: when it was displayed, its latency, the capture time of its mask's frame, and its message.

    `mask` is None if it has no mask.
    """

    moment: float
    latency: float
    mask: float | None
    reason: str


@dataclass(slots=True)
class FaultObservation:
    """The frames displayed in `seconds` from `start` on: `message` identifies the fault, which occurred at `fault`."""

    start: float
    seconds: float
    message: str = ""
    fault: float = math.nan
    records: list[DisplayRecord] = field(default_factory=list)
    marked_ms: float = math.nan

    @property
    def fps(self) -> float:
        """Camera frames displayed a second."""
        return len(self.records) / self.seconds

    @property
    def recovery(self) -> float:
        """Seconds until masks were back; the whole duration if they never were."""
        new = (p.moment - self.fault for p in self.records if p.mask is not None and p.mask > self.fault)
        return next(new, self.seconds)

    @property
    def reported(self) -> bool:
        """Whether a displayed frame reported the fault."""
        return any(self.message in record.reason for record in self.records)

    def gap_ms(self) -> float:
        """The longest time between two displayed frames, in milliseconds."""
        return 1000 * max((b.moment - a.moment for a, b in pairwise(self.records)), default=self.seconds)


@dataclass(frozen=True, slots=True)
class FaultRun:
    """One run: observations by fault, the number of frames never displayed, and the run on an overloaded CPU."""

    observations: Mapping[str, FaultObservation]
    lost: int
    overload: OverloadRun


def run_faults(job: BenchJob) -> FaultRun:
    """Run the job's bundle through all faults, in this process; then on an overloaded CPU."""
    make_segmenter = partial(Segmenter, job.bundle, steps=job.steps)
    observations, lost = observe_faults(job, make_segmenter, open_bundle(job.bundle).manifest.mask_classes)
    return FaultRun(observations, lost, overload.observe_overload(job))


def observe_faults(
    job: BenchJob, make_segmenter: SegmenterFactory, classes: Sequence[ClassSpec]
) -> tuple[dict[str, FaultObservation], int]:
    """Observe every fault with any segmenter; return the observations, and the number of frames never displayed."""
    with tempfile.TemporaryDirectory() as folder, StallingSource(job.clip, RATE, 1 << 30) as source:
        planted = Path(folder)
        camera = overload.camera_of(source)
        supervisor = Supervisor(FaultySegmenter(make_segmenter, planted), len(classes))
        watcher = _Watcher(LiveStream(camera, Overlay(classes), supervisor))
        try:
            watcher.wait_for_mask(_FIRST)
            time.sleep(_SPARE + job.warm_up)
            observations = {NO_FAULT: watcher.watch(FaultObservation(time.monotonic(), job.seconds))}
            for name, message in FAULTS.items():
                (planted / name).touch()
                observations[name] = watcher.watch(FaultObservation(time.monotonic(), job.seconds, message))
                observations[name].fault = _struck(planted / _STRUCK)
                time.sleep(_SPARE)
            observations[CAMERA_STALL] = watcher.stall(source)
        finally:
            watcher.end()
        return observations, camera.dropped


def _struck(path: Path) -> float:
    """When the fault occurred, in `time.monotonic()`; infinity if it did not."""
    if not path.exists():
        return math.inf
    moment = path.stat().st_mtime_ns / 1e9
    path.unlink()
    return moment


class _Watcher:
    """Runs a stream on a thread and records every displayed camera frame."""

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream
        self._records: list[DisplayRecord] = []
        self._thread = threading.Thread(target=stream.run, args=(self._note,), daemon=True)
        self._thread.start()

    def _note(self, frame: Frame, segmentation: Segmentation | None) -> None:
        newest = self._stream.broadcast.newest
        if newest is not None:
            status, captured = newest.status, frame.times["captured"]
            mask = None if status.mask is Freshness.OFF else captured - (status.age_ms or 0.0) / 1000
            latency = frame.elapsed("captured", "write")
            self._records.append(DisplayRecord(frame.times["write"], latency, mask, status.reason))

    def wait_for_mask(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not (self._records and self._records[-1].mask):
            if time.monotonic() > limit or not self._thread.is_alive():
                reason = self._records[-1].reason if self._records else "no frame came"
                raise CliprlError(
                    f"no mask within {seconds:g} s ({reason}): try the clip with cliprl-stream --web first"
                )
            time.sleep(0.05)

    def watch(self, observation: FaultObservation) -> FaultObservation:
        last = observation.start + observation.seconds
        time.sleep(max(last - time.monotonic(), 0.0))
        observation.records = [p for p in tuple(self._records) if observation.start <= p.moment < last]
        return observation

    def stall(self, source: StallingSource) -> FaultObservation:
        """Let the camera stall; measure how long after its last frame that was marked."""
        source.silent_until = time.monotonic() + _STALL
        observation = FaultObservation(time.monotonic(), _STALL)
        while time.monotonic() < source.silent_until:
            newest = self._stream.broadcast.newest
            if newest is not None and newest.status.state is SourceState.STALLED:
                observation.marked_ms = 1000 * (time.monotonic() - self._records[-1].moment)
                break
            time.sleep(0.001)
        return observation

    def end(self) -> None:
        self._stream.stop()
        self._thread.join()


@measurement(
    "faults",
    help="The displayed video while segmentation raises, hangs, gives NaN or is killed, the camera stalls, or the CPU is busy.",
    defaults=BenchJob("", rounds=3, seconds=10, warm_up=2),
    settings=(*TIMING_OPTIONS, "steps"),
    suite={"faults": {}},
)
def measure(session: ResultSession, job: BenchJob, log: LogFunction) -> Result:
    """Measure every fault once per round, each round in a fresh process."""

    def make_result(answers: Answers) -> Result:
        runs: list[FaultRun] = answers[_ALL]
        notes = [verdict(runs), f"camera frames never displayed: {[r.lost for r in runs]}"]
        return session.result(series(runs), METHOD, notes)

    return session.rounds({_ALL: (run_faults, (job,))}, job.rounds, log, make_result)


def series(runs: Sequence[FaultRun]) -> list[Series]:
    """Frame rate, longest gap, latency and recovery by fault."""
    found = []
    for name in (NO_FAULT, *FAULTS):
        observations = [each.observations[name] for each in runs]
        found += [
            Series.of(name, "frame rate", "FPS", [[s.fps] for s in observations]),
            Series.of(name, "longest gap", "ms", [[s.gap_ms()] for s in observations]),
            Series.of(name, "latency", "ms", [[1000 * p.latency for p in s.records] for s in observations]),
        ]
        if name != NO_FAULT:
            found.append(Series.of(name, "masks back after", "s", [[s.recovery] for s in observations]))
    marks = [each.observations[CAMERA_STALL].marked_ms for each in runs]
    # A stall that was never marked counts as marked at its end, so that it is not left out.
    found.append(Series.of(CAMERA_STALL, "marked after", "ms", [[1000 * _STALL if ms != ms else ms] for ms in marks]))
    return [*found, *overload.series([each.overload for each in runs])]


def verdict(runs: Sequence[FaultRun]) -> str:
    """Tell in a sentence whether the limits held in every round."""
    broken = []
    for name in (NO_FAULT, *FAULTS):
        observations = [each.observations[name] for each in runs]
        broken += [f"{name}: {s.fps:.1f} FPS" for s in observations if abs(s.fps / RATE - 1) > RATE_TOLERANCE]
        broken += [
            f"{name}: masks back after {s.recovery:.1f} s"
            for s in observations
            if name != NO_FAULT and not s.recovery <= RECOVERY
        ]
        broken += [f"{name}: not reported" for s in observations if not s.reported and name != NO_FAULT]
    marks = [each.observations[CAMERA_STALL].marked_ms for each in runs]
    broken += [f"{CAMERA_STALL}: marked after {ms:.0f} ms" for ms in marks if not ms <= STALL_MARK]
    broken += overload.broken([each.overload for each in runs])
    return f"BROKEN: {'; '.join(broken)}" if broken else "held: every limit, in every round; each fault was reported"
