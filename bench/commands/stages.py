"""`cliprl-bench stages`: the cost of each stage alone and in the running stream, and the bound that follows.

The bound is the rate at which no processor would be idle: cores over the CPU seconds that the stages need for a frame. Two bounds
are measured: with one stage running alone, and with a load on the other cores, which runs the same stages on the same clip. Busy
cores take cache, memory bandwidth and clock from each other; no arrangement of the stages can keep the first bound.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from multiprocessing.synchronize import Event
from pathlib import Path

from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction, Runner, TaskOutcome, TimedRun, timed_runs
from cliprl.bench.peers import cliprl_contender
from cliprl.engines import CliprlError, available_cpus
from cliprl.pipeline import Frame, OutputSpec, Overlay, Segmentation, Segmenter, Sink, Source, open_sink, open_source
from cliprl.pipeline.core.statistics import STAGES
from cliprl.pipeline.core.thread_policy import single_threaded
from cliprl.pipeline.tracking.segmenter import TrackingSegmenter

ALONE, IN_PLACE, CPU_WORK = "alone", "in place", "alone, CPU work"
BUSY, BUSY_WORK = "stages with the other cores busy", "other cores busy, CPU work"
# Tracking, with `--ids` only: it is measured alone, and no part of the bound.
WITH_IDS, TRACK = "alone, with ids", "track"
# Most bytes of decoded frames that a pass holds in memory.
HELD_BYTES = 192_000_000
# Frames of a pass of the load on another core, and seconds to wait until it runs.
LOAD_FRAMES, LOAD_PATIENCE = 24, 120.0
METHOD = {
    "includes": "alone: one stage after the other over the same frames, nothing else running; other cores busy: the same, while "
    "the other cores run the same stages in other processes; in place: within the running "
    "stream, waiting for other stages not included. CPU work counts all threads of a stage, opening and closing files too",
    "excludes": "starting Python, compiling the networks",
}


class ClockedFrame(Frame):
    """A frame that also records the CPU seconds of the process in each stage: `cpu`, by stage."""

    cpu: dict[str, float]

    @classmethod
    def of(cls, frame: Frame) -> ClockedFrame:
        """The same frame, the same planes."""
        clocked = cls(**{f.name: getattr(frame, f.name) for f in fields(Frame)})
        clocked.cpu = {}
        return clocked

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the stage by both clocks."""
        start = time.process_time()
        with Frame.stage(self, name):
            yield
        self.cpu[name] = time.process_time() - start


@dataclass
class Costs:
    """The cost of one pass: milliseconds by the clock of every frame, and CPU seconds and frames in all, by stage."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    frames: dict[str, int] = field(default_factory=dict)

    def note(self, stage: str, wall: Sequence[float], cpu: float) -> None:
        """Add the seconds of one stage."""
        self.wall.setdefault(stage, []).extend(seconds * 1000 for seconds in wall)
        self.cpu[stage] = self.cpu.get(stage, 0.0) + cpu
        self.frames[stage] = self.frames.get(stage, 0) + len(wall)

    def work(self, stage: str) -> float:
        """CPU milliseconds a frame."""
        return self.cpu[stage] / self.frames[stage] * 1000


def prepare_stages(job: BenchJob) -> Runner:
    """Make a runner that processes the clip stage by stage."""
    segmenter = Segmenter(job.bundle, steps=job.steps)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        with single_threaded():  # as within the stream
            costs = one_pass(job.clip, segmenter, out, frames)
        samples_by_round = {stage: costs.wall[stage] for stage in (*STAGES, TRACK)}
        samples_by_round |= {f"{stage} work": [costs.work(stage)] for stage in (*STAGES, TRACK)}
        return TaskOutcome(costs.frames["decode"], samples_by_round)

    return run


def one_pass(clip: str, segmenter: Segmenter, out: Path, frames: int | None, *, track: bool = True) -> Costs:
    """Run every stage over the clip's first frames, one stage at a time, on as many frames as memory may hold at once."""
    costs, done = Costs(), 0
    segmenter.reset()
    tracking = TrackingSegmenter(segmenter, segmenter.classes) if track else segmenter
    overlay = Overlay(segmenter.classes)
    stages = ("prepare", "encode", "refine", *((TRACK,) if track else ()), "draw")
    cpu = time.process_time()
    with open_source(clip) as source:
        costs.note("decode", (), time.process_time() - cpu)
        limit = max(8, HELD_BYTES // (source.info.height * source.info.width * 3 // 2))
        with _writing(out, OutputSpec(source.info, segmenter.classes), costs) as sink:
            while held := _decode(source, limit if frames is None else min(limit, frames - done), costs):
                done += len(held)
                seen = [replace(tracking(frame), instances=None) for frame in held]
                for frame, segmentation in zip(held, seen, strict=True):
                    with frame.stage("draw"):
                        overlay.draw(frame, segmentation)
                for stage in stages:
                    costs.note(
                        stage, [frame.durations[stage] for frame in held], sum(frame.cpu[stage] for frame in held)
                    )
                _write(held, seen, sink, costs)
    return costs


def _decode(source: Source, limit: int, costs: Costs) -> list[ClockedFrame]:
    held: list[ClockedFrame] = []
    wall = []
    cpu, start = time.process_time(), time.monotonic()
    while len(held) < limit and (frame := source.read()) is not None:
        wall.append(time.monotonic() - start)
        held.append(ClockedFrame.of(frame))
        start = time.monotonic()
    costs.note("decode", wall, time.process_time() - cpu)
    return held


@contextmanager
def _writing(out: Path, spec: OutputSpec, costs: Costs) -> Iterator[Sink]:
    """Open the output; opening and closing count as work of its stage."""
    cpu = time.process_time()
    sink = open_sink(out, spec)
    try:
        costs.note("write", (), time.process_time() - cpu)
        yield sink
    finally:
        cpu = time.process_time()
        sink.close()
        costs.note("write", (), time.process_time() - cpu)


def _write(held: Sequence[Frame], seen: Sequence[Segmentation], sink: Sink, costs: Costs) -> None:
    wall = []
    cpu = time.process_time()
    for frame, segmentation in zip(held, seen, strict=True):
        start = time.monotonic()
        sink.write(frame, segmentation)
        wall.append(time.monotonic() - start)
    costs.note("write", wall, time.process_time() - cpu)


class StageLoad:
    """A process that runs the stages on one core, again and again, while it is switched on."""

    def __init__(self, job: BenchJob) -> None:
        context = multiprocessing.get_context("spawn")
        self._on, self._running = context.Event(), context.Event()
        # A daemon: it ends with the process that measures.
        context.Process(target=_run_load, args=(job, self._on, self._running), daemon=True).start()

    def switch(self, *, on: bool) -> None:
        """Switch it on or off, and wait until it runs or rests. Raises CliprlError if it does not follow."""
        (self._on.set if on else self._on.clear)()
        until = time.monotonic() + LOAD_PATIENCE
        while self._running.is_set() != on:
            if time.monotonic() > until:
                raise CliprlError("the load on the other cores does not run: try the clip with cliprl-stream first")
            time.sleep(0.01)


def _run_load(job: BenchJob, on: Event, running: Event) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    segmenter = Segmenter(job.bundle, steps=job.steps, threads=1)
    with tempfile.TemporaryDirectory() as folder, single_threaded():
        while on.wait():
            running.set()
            one_pass(job.clip, segmenter, Path(folder) / "out.mp4", LOAD_FRAMES, track=False)
            if not on.is_set():
                running.clear()


def prepare_busy_stages(job: BenchJob) -> Runner:
    """Make a runner that processes the clip stage by stage, while the other cores run the same stages."""
    loads = [StageLoad(job) for _ in range(available_cpus() - 1)]
    runner = prepare_stages(job)

    def run(out: Path, frames: int | None) -> TaskOutcome:
        try:
            for load in loads:
                load.switch(on=True)
            return runner(out, frames)
        finally:
            for load in loads:
                load.switch(on=False)

    return run


def alone(job: BenchJob) -> list[TimedRun]:
    """Measure one round of the stages alone, in this process."""
    return timed_runs(prepare_stages(job), job)


def busy(job: BenchJob) -> list[TimedRun]:
    """Measure one round of the stages with the other cores busy, in this process."""
    return timed_runs(prepare_busy_stages(job), job)


def in_place(job: BenchJob) -> list[TimedRun]:
    """Measure one round of the stream, in this process."""
    return timed_runs(cliprl_contender.prepare(job), job)


def samples_by_round(rounds: Sequence[Sequence[TimedRun]], name: str) -> list[list[float]]:
    """The samples of that name, one list a round."""
    return [[value for run in runs for value in run.outcome.samples[name]] for runs in rounds]


def alone_series(rounds: Sequence[Sequence[TimedRun]]) -> list[Series]:
    """Wall time and CPU work of each stage alone, and the bound."""
    wall = [Series.of(ALONE, stage, "ms", samples_by_round(rounds, stage)) for stage in STAGES]
    work = [Series.of(CPU_WORK, stage, "ms", samples_by_round(rounds, f"{stage} work")) for stage in STAGES]
    names = {TRACK: TRACK, f"{TRACK}, CPU work": f"{TRACK} work"}
    track = [Series.of(WITH_IDS, shown, "ms", samples_by_round(rounds, name)) for shown, name in names.items()]
    return [*wall, *work, *track, Series.of(CPU_WORK, "bound", "FPS", [[bound] for bound in bounds(rounds)])]


def busy_series(rounds: Sequence[Sequence[TimedRun]]) -> list[Series]:
    """CPU work of each stage with the other cores busy, and the bound."""
    work = [Series.of(BUSY_WORK, stage, "ms", samples_by_round(rounds, f"{stage} work")) for stage in STAGES]
    return [*work, Series.of(BUSY_WORK, "bound", "FPS", [[bound] for bound in bounds(rounds)])]


def bounds(rounds: Sequence[Sequence[TimedRun]]) -> list[float]:
    """Cores over the CPU seconds of all stages for a frame, one value a round."""
    totals = [[sum(run.outcome.samples[f"{stage} work"][0] for stage in STAGES) for run in runs] for runs in rounds]
    return [available_cpus() * 1000 / sorted(total)[len(total) // 2] for total in totals]


@measurement(
    "stages",
    help="Each stage alone and in the running stream, by the clock and in CPU time.",
    defaults=BenchJob("", rounds=3, seconds=5, warm_up=2),
    suite={"stages": {}},
)
def measure(session: ResultSession, job: BenchJob, log: LogFunction) -> Result:
    """Measure rounds of both cases in turn, each in a fresh process."""
    tasks = {ALONE: (alone, (job,)), BUSY: (busy, (job,)), IN_PLACE: (in_place, (job,))}
    return session.rounds(tasks, job.rounds, log, lambda answers: session.result(series_of(answers), METHOD))


def series_of(answers: Mapping[str, Sequence[Sequence[TimedRun]]]) -> list[Series]:
    """All series of rounds by case, ALONE, BUSY and IN_PLACE; empty until the first and the last have an answer."""
    if ALONE not in answers or IN_PLACE not in answers:
        return []
    running = [Series.of(IN_PLACE, stage, "ms", samples_by_round(answers[IN_PLACE], stage)) for stage in STAGES]
    loaded = busy_series(answers[BUSY]) if BUSY in answers else []
    return [*alone_series(answers[ALONE]), *loaded, *running]


def mean(values: Sequence[float]) -> float:
    """The mean of numbers, NaN of none."""
    return math.fsum(values) / len(values) if values else math.nan
