"""`cliprl-bench faults`: what the picture does while segmentation fails in every way, the camera stalls, the machine is too slow.

A clip comes at a camera's pace and takes the live path. Faults are planted in the segmenting process itself, in turn: it
raises, hangs for five seconds, gives masks that are not numbers, is killed. Every displayed picture is noted.
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

from cliprl.bench.commands import overload
from cliprl.bench.commands.overload import Overload
from cliprl.bench.fixtures.looped_source import PacedSource
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import Answers, BenchJob, Say
from cliprl.engines import ClassSpec, CliprlError, open_bundle
from cliprl.pipeline import Frame, Overlay, Segmentation, Segmenter, Source
from cliprl.pipeline.core.interfaces import PlaneAllocator
from cliprl.pipeline.live.broadcast import Freshness, SourceState
from cliprl.pipeline.live.capture import LiveCapture
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.segmentation.worker import SegmenterFactory, SegmentFunction
from cliprl.pipeline.live.stream import LiveStream

RATE = 25
# Each fault, and the words by which the picture tells it.
FAULTS = {"raises": "planted", "hangs for 5 s": "has hung", "masks are NaN": "not a number", "is killed": "signal 9"}
_ALL = "all faults"
NO_FAULT, STALL = "no fault", "camera stalls for 3 s"
_HANG, _STALL = 5.0, 3.0
# The file's name once the fault has struck; its time is by the monotonic clock, which all processes share.
_STRUCK = "struck"
# What is promised: the frame rate's largest deviation, seconds until masks are back, milliseconds until a stall is marked.
STEADY, BACK, MARKED = 0.05, 2.0, 500.0
# Seconds until the first mask, and until a spare process is ready after a fault.
_FIRST, _SPARE = 120.0, 4.0
METHOD = {
    "includes": f"a clip repeated at {RATE} FPS through the live path, segmenter in its own process, nobody watching",
    "frame rate": "camera frames displayed a second, from the planting of the fault on, over the seconds of a round",
    "back": "seconds from the moment of the fault to the first picture with the mask of a frame that was captured after it",
    overload.CASE: f"a camera over TCP, read, segmented and displayed with {overload.SHARE:.0%} of one processor; true age off a "
    "time code in the picture, to the end of what is displayed after the camera has hung up",
    "promised": f"frame rate within {STEADY:.0%} of the camera's, masks back in {BACK:g} s, a stall marked in {MARKED:g} ms; no "
    f"picture older than {overload.OLD:g} s called live, the latency shown true to {overload.EXACT:g} ms",
}


@dataclass(frozen=True, slots=True)
class Faulty:
    """Makes the segmenter of `make_segmenter`; a file in `folder` with the name of a fault triggers that fault, once."""

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
    """A camera that gives nothing before the moment `silent_until`."""

    silent_until = 0.0

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        time.sleep(max(self.silent_until - time.monotonic(), 0.0))
        return super()._read(allocate)


@dataclass(frozen=True, slots=True)
class Picture:
    """A displayed camera frame: when, how long after it was captured, when the frame was whose mask it shows, and what is said.

    `mask` None: it shows none.
    """

    moment: float
    latency: float
    mask: float | None
    reason: str


@dataclass(slots=True)
class Observation:
    """What was seen from `start` on for `seconds`: `words` tell the fault, which came at `fault`."""

    start: float
    seconds: float
    words: str = ""
    fault: float = math.nan
    pictures: list[Picture] = field(default_factory=list)
    marked_ms: float = math.nan

    @property
    def fps(self) -> float:
        """Camera frames displayed a second."""
        return len(self.pictures) / self.seconds

    @property
    def back(self) -> float:
        """Seconds until masks were back; all that were watched where they never were."""
        new = (p.moment - self.fault for p in self.pictures if p.mask is not None and p.mask > self.fault)
        return next(new, self.seconds)

    @property
    def told(self) -> bool:
        """Whether a picture told the fault."""
        return any(self.words in picture.reason for picture in self.pictures)

    def gap_ms(self) -> float:
        """The longest time between two pictures, in milliseconds."""
        return 1000 * max((b.moment - a.moment for a, b in pairwise(self.pictures)), default=self.seconds)


@dataclass(frozen=True, slots=True)
class WatchedFault:
    """One run: what was seen, by fault; the frames that were never displayed; and what an overloaded machine displayed."""

    sights: Mapping[str, Observation]
    lost: int
    overload: Overload


def run(job: BenchJob) -> WatchedFault:
    """One run of the job's bundle through all faults, in this process; then with too little of a processor."""
    sights, lost = observe(
        job, partial(Segmenter, job.bundle, steps=job.steps), open_bundle(job.bundle).manifest.classes
    )
    return WatchedFault(sights, lost, overload.observe(job))


def observe(
    job: BenchJob, make_segmenter: SegmenterFactory, classes: Sequence[ClassSpec]
) -> tuple[dict[str, Observation], int]:
    """What was seen, by fault, with any segmenter; and the frames that were never displayed."""
    with tempfile.TemporaryDirectory() as folder, StallingSource(job.clip, RATE, 1 << 30) as source:
        planted = Path(folder)
        camera = LiveCapture(partial(_never, source), source, name="camera", reconnect=False)
        supervisor = Supervisor(Faulty(make_segmenter, planted), len(classes))
        watcher = _Watcher(LiveStream(camera, Overlay(classes), supervisor))
        try:
            watcher.wait_for_mask(_FIRST)
            time.sleep(_SPARE + job.warm_up)
            sights = {NO_FAULT: watcher.watch(Observation(time.monotonic(), job.seconds))}
            for name, words in FAULTS.items():
                (planted / name).touch()
                sights[name] = watcher.watch(Observation(time.monotonic(), job.seconds, words))
                sights[name].fault = _struck(planted / _STRUCK)
                time.sleep(_SPARE)
            sights[STALL] = watcher.stall(source)
        finally:
            watcher.end()
        return sights, camera.dropped


def _struck(path: Path) -> float:
    """When the fault struck, in `time.monotonic()`; infinitely late where it never did."""
    if not path.exists():
        return math.inf
    moment = path.stat().st_mtime_ns / 1e9
    path.unlink()
    return moment


def _never(source: Source) -> Source:
    raise CliprlError(f"{source.info.name} has ended")


class _Watcher:
    """Runs a stream on a thread and notes every camera frame displayed."""

    def __init__(self, stream: LiveStream) -> None:
        self._stream = stream
        self._pictures: list[Picture] = []
        self._thread = threading.Thread(target=stream.run, args=(self._note,), daemon=True)
        self._thread.start()

    def _note(self, frame: Frame, segmentation: Segmentation | None) -> None:
        newest = self._stream.broadcast.newest
        if newest is not None:
            status, captured = newest.status, frame.times["captured"]
            mask = None if status.mask is Freshness.OFF else captured - (status.age_ms or 0.0) / 1000
            latency = frame.elapsed("captured", "write")
            self._pictures.append(Picture(frame.times["write"], latency, mask, status.reason))

    def wait_for_mask(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while not (self._pictures and self._pictures[-1].mask):
            if time.monotonic() > limit or not self._thread.is_alive():
                reason = self._pictures[-1].reason if self._pictures else "no picture came"
                raise CliprlError(
                    f"no mask within {seconds:g} s ({reason}): try the clip with cliprl-stream --web first"
                )
            time.sleep(0.05)

    def watch(self, sight: Observation) -> Observation:
        last = sight.start + sight.seconds
        time.sleep(max(last - time.monotonic(), 0.0))
        sight.pictures = [p for p in tuple(self._pictures) if sight.start <= p.moment < last]
        return sight

    def stall(self, source: StallingSource) -> Observation:
        """Let the camera stall; how long after its last picture that was marked."""
        source.silent_until = time.monotonic() + _STALL
        sight = Observation(time.monotonic(), _STALL)
        while time.monotonic() < source.silent_until:
            newest = self._stream.broadcast.newest
            if newest is not None and newest.status.state is SourceState.STALLED:
                sight.marked_ms = 1000 * (time.monotonic() - self._pictures[-1].moment)
                break
            time.sleep(0.001)
        return sight

    def end(self) -> None:
        self._stream.stop()
        self._thread.join()


def measure(session: ResultSession, job: BenchJob, say: Say) -> Result:
    """Every fault once a round, each round in a fresh process."""

    def made(answers: Answers) -> Result:
        runs: list[WatchedFault] = answers[_ALL]
        notes = [verdict(runs), f"camera frames never displayed: {[r.lost for r in runs]}"]
        return session.result(series(runs), METHOD, notes)

    return session.rounds({_ALL: (run, (job,))}, job.rounds, say, made)


def series(runs: Sequence[WatchedFault]) -> list[Series]:
    """Rate, longest gap, latency and recovery by fault."""
    found = []
    for name in (NO_FAULT, *FAULTS):
        sights = [each.sights[name] for each in runs]
        found += [
            Series.of(name, "frame rate", "FPS", [[s.fps] for s in sights]),
            Series.of(name, "longest gap", "ms", [[s.gap_ms()] for s in sights]),
            Series.of(name, "latency", "ms", [[1000 * p.latency for p in s.pictures] for s in sights]),
        ]
        if name != NO_FAULT:
            found.append(Series.of(name, "masks back after", "s", [[s.back] for s in sights]))
    marks = [each.sights[STALL].marked_ms for each in runs]
    # One that was never marked counts as marked when the stall was over, lest it be left out.
    found.append(Series.of(STALL, "marked after", "ms", [[1000 * _STALL if ms != ms else ms] for ms in marks]))
    return [*found, *overload.series([each.overload for each in runs])]


def verdict(runs: Sequence[WatchedFault]) -> str:
    """A sentence on whether what is promised held in every round."""
    broken = []
    for name in (NO_FAULT, *FAULTS):
        sights = [each.sights[name] for each in runs]
        broken += [f"{name}: {s.fps:.1f} FPS" for s in sights if abs(s.fps / RATE - 1) > STEADY]
        broken += [
            f"{name}: masks back after {s.back:.1f} s" for s in sights if name != NO_FAULT and not s.back <= BACK
        ]
        broken += [f"{name}: not told" for s in sights if not s.told and name != NO_FAULT]
    marks = [each.sights[STALL].marked_ms for each in runs]
    broken += [f"{STALL}: marked after {ms:.0f} ms" for ms in marks if not ms <= MARKED]
    broken += overload.broken([each.overload for each in runs])
    return f"BROKEN: {'; '.join(broken)}" if broken else "held: every promise, in every round; each fault was told"
