"""`cliprl-bench live`: the live path at a camera's fixed rate: lost frames, latency under load, missed deadlines, age of masks.

Each frame contains its number as a time code, which a viewer on loopback reads from the decoded frame.
"""

from __future__ import annotations

import gc
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench.commands.live_path.overload import camera_of
from cliprl.bench.fixtures import timecode
from cliprl.bench.fixtures.loopback_viewer import QUALITY, LoopbackViewer
from cliprl.bench.fixtures.looped_source import PacedSource
from cliprl.bench.fixtures.timecoded_camera import check_width
from cliprl.bench.harness.registry import TIMING_OPTIONS, measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import send_value
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction
from cliprl.bench.peers import cliprl_contender
from cliprl.engines import open_bundle
from cliprl.pipeline import Frame, Overlay, Segmentation, Segmenter
from cliprl.pipeline.core.interfaces import PlaneAllocator
from cliprl.pipeline.live.controls import Controls, Settings
from cliprl.pipeline.live.display_loop import DisplayPolicy
from cliprl.pipeline.live.recording.recorder import RecordOptions, recordings
from cliprl.pipeline.live.segmentation.supervisor import Supervisor
from cliprl.pipeline.live.sink_thread import SinkThread
from cliprl.pipeline.live.stream import LiveStream

RATES = (25, 30, 60, 120)
# Surgeons' performance falls at 105 ms of added latency (29 surgeons; see the README).
DEADLINE_MS = 100.0
# A rate at which more than this share of the frames is lost is beyond saturation.
LOSS = 0.01
LIVE_STAGES = ("read", "draw", "write")
GLASS, MASK_AGE = "glass to glass", "age of the mask"
METHOD = {
    "includes": "latency: from the moment a frame is due until it is displayed, and handed to the output and the recording; "
    "glass to glass: to the moment when another process on this machine has received it over loopback (H.264 over TCP), "
    "decoded it and read the number in the frame; lost: frames that this process never received",
    "excludes": "starting Python, compiling the networks, the first seconds of each run, a camera's and a screen's own delays",
    "pace": "a clip repeated at a fixed rate, opened again ahead of its end; a driver's queue of 4 frames",
    "masks": "as for every live source, a frame does not wait for its mask: the newest one is moved along the motion; age of the "
    "mask: between the frame that it is of and the displayed one",
}


@dataclass(frozen=True, slots=True)
class LiveRun:
    """One run at one rate: seconds measured, frames due in them, how many of these were lost, samples of the rest.

    missed: frames that are missing in the recording.
    """

    seconds: float
    offered: int
    lost: int
    samples: Mapping[str, list[float]]
    missed: int = 0


def join_runs(runs: Sequence[LiveRun]) -> LiveRun:
    """Join consecutive parts of a run into one."""
    samples = {name: [value for run in runs for value in run.samples[name]] for name in runs[0].samples}
    seconds = math.fsum(run.seconds for run in runs)
    offered, lost, missed = (sum(getattr(run, name) for run in runs) for name in ("offered", "lost", "missed"))
    return LiveRun(seconds, offered, lost, samples, missed)


class CodedSource(PacedSource):
    """A paced source that writes its number into each frame."""

    def _read(self, allocate: PlaneAllocator) -> Frame | None:
        frame = super()._read(allocate)
        if frame is not None:
            timecode.draw_number(frame.luma, frame.index)
        return frame


class _Watcher:
    """Collects samples of a run from frame `first` of the source to `last`, and reports a part every second."""

    def __init__(
        self,
        source: PacedSource,
        display: LoopbackViewer,
        first: int,
        last: int,
        stream: LiveStream | None = None,
    ) -> None:
        self._source, self._display, self._stream = source, display, stream
        self._next, self._last = first, last
        self._first, self._newest = first, -1
        self._collector, self._mask_ages = cliprl_contender.Collector(LIVE_STAGES, since="due"), list[float]()
        self._reported = time.monotonic()
        self.parts: list[LiveRun] = []

    def __call__(self, frame: Frame, segmentation: Segmentation | None) -> None:
        """Record a written frame, unless it came during the warm-up."""
        if frame.times["due"] >= self._source.due(self._first):  # the live path numbers frames anew
            self._collector(frame, segmentation)
            newest = self._stream and self._stream.broadcast.newest
            age = newest.status.age_ms if newest else None
            self._mask_ages.append(math.nan if age is None else age)
        if time.monotonic() > self._reported + 1:
            self._reported = time.monotonic()
            self.cut()

    def cut(self, *, end: bool = False) -> None:
        """End a part at the newest displayed frame; with `end`, at the end of the run."""
        ages = []
        for moment, number in self._display.seen():
            self._newest = self._newest + 1 if number is None else number
            if self._first <= self._newest < self._last:
                # A frame with an unreadable number was displayed, but its age is unknown.
                ages.append(math.nan if number is None else 1000 * (moment - self._source.due(number)))
        until = self._last if end else min(self._newest + 1, self._last)
        offered = max(until - self._next, 0)
        if not offered and not ages:
            return
        self._next = max(until, self._next)
        samples, self._collector = self._collector.samples, cliprl_contender.Collector(LIVE_STAGES, since="due")
        samples, self._mask_ages = samples | {GLASS: ages, MASK_AGE: self._mask_ages}, []
        missed = sum(recording.missed for recording in self._stream.recordings) if end and self._stream else 0
        part = LiveRun(float(offered / self._source.rate), offered, offered - len(ages), samples, missed)
        self.parts.append(part)
        send_value(part)


@contextmanager
def _frozen_heap() -> Iterator[None]:
    """Leave what is loaded out of garbage collections, as the command does: one would hold up a frame for 40 ms."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def one_rate(rate: int, job: BenchJob, record: bool = False) -> LiveRun:
    """Measure one run at `rate` frames a second; with `record`, the overlaid frames are recorded too."""
    classes = open_bundle(job.bundle).manifest.mask_classes
    first, last = round(job.warm_up * rate), round((job.warm_up + job.seconds) * rate)
    with (
        _frozen_heap(),
        tempfile.TemporaryDirectory() as folder,
        CodedSource(job.clip, rate, last) as source,
        LoopbackViewer(source.info) as display,
    ):
        check_width(source.info)
        overlay = Overlay(classes)
        capture = camera_of(source)
        recorded = recordings(RecordOptions(Path(folder), "overlay"), lambda: capture.info) if record else ()
        stream = LiveStream(
            capture,
            overlay,
            Supervisor(partial(Segmenter, job.bundle, steps=job.steps), len(classes)),
            [SinkThread(lambda: display, network=True, quality=QUALITY)],
            recordings=recorded,
            controls=Controls(classes, Settings.of(overlay.style, classes, recording=record)),
            policy=DisplayPolicy(guard=False),  # the guard would pixelate the numbers
        )
        watcher = _Watcher(source, display, first, last, stream)
        stream.run(watcher)
        watcher.cut(end=True)
    return join_runs(watcher.parts)


@measurement(
    "live",
    help="Paced like a camera, at 25, 30, 60 and 120 FPS: frames lost, latency under load, missed deadlines.",
    defaults=BenchJob("", rounds=1, seconds=60, warm_up=15),
    settings=(*TIMING_OPTIONS, "steps"),
    suite={"live": {"rates": (30, 60, 120), "seconds": 30.0}, "live-25": {"rates": (25,), "seconds": 600.0}},
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    rates: Annotated[Sequence[int], typer.Option("--rate", min=1, help="Frames per second; may be repeated.")] = RATES,
    record: Annotated[bool, typer.Option("--record", help="Record the overlaid frames to a file too.")] = False,
) -> Result:
    """Measure every rate in turn, each in a fresh process."""
    tasks = {_case(rate): (one_rate, (rate, job, record)) for rate in rates}

    def make_result(answers: Answers) -> Result:
        done = [rate for rate in rates if _case(rate) in answers]
        series = [s for rate in done for s in rate_series(rate, answers[_case(rate)])]
        recorded = {"recording": "overlaid frames to an MP4 file, x264 ultrafast, beside the viewer"} if record else {}
        return session.result(series, METHOD | {"deadline_ms": DEADLINE_MS} | recorded, [saturation(done, answers)])

    return session.rounds(tasks, job.rounds, log, make_result, join_runs)


def _case(rate: int) -> str:
    return f"{rate} FPS"


def rate_series(rate: int, runs: Sequence[LiveRun]) -> list[Series]:
    """The series of one rate."""
    case, ages = _case(rate), [run.samples[GLASS] for run in runs]
    late = [[100 * sum(v > DEADLINE_MS for v in values) / max(1, len(values))] for values in ages]
    delivered = [[(run.offered - run.lost) / run.seconds] for run in runs]
    series = [
        Series.of(case, "delivered", "FPS", delivered),
        Series.of(case, "lost", "%", [[100 * run.lost / run.offered] for run in runs]),
        Series.of(case, f"later than {DEADLINE_MS:g} ms", "%", late),
        Series.of(case, "missing in the recording", "frames", [[run.missed] for run in runs]),
    ]
    names = (GLASS, cliprl_contender.LATENCY, MASK_AGE, *LIVE_STAGES)
    return series + [Series.of(case, name, "ms", [run.samples[name] for run in runs]) for name in names]


def saturation(rates: Sequence[int], answers: Mapping[str, Sequence[LiveRun]]) -> str:
    """Describe the rate from which frames are lost in a sentence."""
    for rate in sorted(rates):
        runs = answers[_case(rate)]
        lost = sum(run.lost for run in runs) / sum(run.offered for run in runs)
        if lost > LOSS:
            delivered = sum((run.offered - run.lost) / run.seconds for run in runs) / len(runs)
            return f"saturates below {rate} FPS: there {lost:.0%} of the frames are lost and {delivered:.1f} a second come out"
    return f"keeps up with every rate tried, to {max(rates)} FPS"
