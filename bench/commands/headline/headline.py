"""`cliprl-bench headline`: the figures that a version is held to (`bench/headline.toml`), in one run of bounded length.

Everything is a ratio within pairs that take turns, so that the host's speed cancels out: the stream over other programs, over the
bound of its stages, over an earlier checkout; large frames over small ones. Only starts and large frames are absolute.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench.commands import stages, startup, stream
from cliprl.bench.commands.headline import checkout
from cliprl.bench.harness.clips import scaled_clip
from cliprl.bench.harness.host import HostWatch
from cliprl.bench.harness.pairs import Contender, PairedRounds, measure_pairs
from cliprl.bench.harness.registry import TIMING_OPTIONS, measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction, SortedRounds, quiet_rounds
from cliprl.bench.peers import cliprl_contender, find_peer
from cliprl.engines.bundle.bundle import file_hash

OWN = cliprl_contender.NAME
RIVALS = ("OpenCV + OpenVINO loop", "ultralytics yolo26n-seg, OpenVINO", "supervision")
# Heights to which the clip is scaled, and the frames of such a clip; rates are compared with the first one's.
HEIGHTS, SCALED_FRAMES = (720, 1080, 2160), 100
SAME_LABELS, SAME_LABELS_OF_ONE_BUNDLE = "labels as the baseline", "labels as the baseline, with its bundle"
METHOD = {
    "includes": "as `stream`, `peers`, `scale` and `start`, which measure the same at more length",
    "pairs": "two programs take turns, a few seconds each, in processes that stay ready",
    "sizes": f"the clip's first {SCALED_FRAMES} frames, scaled (bicubic) and encoded by x264 beforehand, at each height",
    "baseline": "an earlier checkout: the ratio of the CPU time of a frame, and the share of cells that have the same label, "
    "also with the earlier checkout's bundle in both",
}


class TimeBudget:
    """Divides the time of a run among its parts: each begins rounds as long as its share lasts, and has one at least."""

    def __init__(self, seconds: float, parts: int) -> None:
        self._end, self._parts = time.monotonic() + seconds, parts

    def until(self, name: str = "") -> float:
        """The moment at which the next part should end."""
        now, left = time.monotonic(), max(self._parts, 1)
        self._parts -= 1
        return now + max(self._end - now, 0.0) / left


@functools.cache
def _kept_folder() -> Path:
    """A folder for the scaled clips, which serve all runs of this process."""
    folder = Path(tempfile.mkdtemp(prefix="cliprl-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _scaled(clip: str, height: int, log: LogFunction) -> Path:
    path = _kept_folder() / f"{file_hash(Path(clip))[:16]}-{height}.mp4"
    if not path.exists():
        log(f"scaling the clip to {height} lines")
        scaled_clip(clip, height, path, SCALED_FRAMES)
    return path


def _checkout(value: Path | None) -> Path | None:
    return None if value is None else checkout.check_checkout(value)


@measurement(
    "headline",
    help="The figures that a version is held to, in pairs and in bounded time: ratios to others, efficiency, sizes, starts.",
    defaults=BenchJob("", rounds=3, seconds=2, warm_up=1, spare=6),
    settings=TIMING_OPTIONS,
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    minutes: Annotated[float, typer.Option(min=0.1, help="Time after which no part begins another round.")] = 6.0,
    baseline: Annotated[
        Path | None, typer.Option(callback=_checkout, help="An earlier checkout, to compare CPU work and labels with.")
    ] = None,
) -> Result:
    """Measure all parts; a program to compare with that fails is left out with a note."""
    others = contenders(job, baseline)
    budget = TimeBudget(60 * minutes, len(others) + len(HEIGHTS))
    series: list[Series] = []
    notes: list[str] = []

    def left_out(name: str, error: Exception) -> None:
        notes.append(f"{name} left out: {error}")
        log(notes[-1])

    def keep(found: list[Series]) -> None:
        session.keep(session.result([*series, *found], METHOD, notes), "ended early")

    first = (cliprl_contender.prepare, job)
    answers = measure_pairs(
        *(OWN, first, others, session.host, log),
        keep=lambda done, rounds: keep(pair_series(done)),
        until=budget.until,
        left_out=left_out,
    )
    series += pair_series(answers)
    if baseline is not None:
        series += _same_labels(baseline, job, log, left_out)
        notes.append(f"baseline: commit {checkout.commit_of(baseline)}")
    series += _sizes(session, job, log, budget)
    keep([])
    series += _starts(session, job, log, budget)
    return session.result(series, METHOD, notes)


def contenders(job: BenchJob, baseline: Path | None) -> dict[str, Contender]:
    """The stages beside a load, the rivals that are installed, and the baseline."""
    found: dict[str, Contender] = {stages.BUSY: (stages.prepare_busy_stages, job)}
    found |= {name: (find_peer(name).prepare, job) for name in RIVALS}
    if baseline is not None:
        found[checkout.NAME] = (partial(checkout.prepare_checkout, folder=baseline), job)
    return found


def pair_series(answers: Mapping[str, PairedRounds]) -> list[Series]:
    """All series of the pairs measured so far."""
    own = stream.own_rounds(answers)
    series = [*stream.rate_series(own, OWN), stream.work_series(own, OWN)]
    for name, pair in answers.items():
        if name == stages.BUSY:
            series += [*stream.efficiency(pair), *stages.busy_series(pair.other)]
        elif name == checkout.NAME:
            ratio = Series.of(OWN, "CPU work over the baseline", "ratio", stream.cpu_ratios(pair.first, pair.other))
            series += [*stream.rate_series(pair.other, name)[:1], *stream.pair_lead(pair, name), ratio]
        else:
            series += [*stream.rate_series(pair.other, name, find_peer(name).note()), *stream.pair_lead(pair, name)]
    return series


def _same_labels(
    folder: Path, job: BenchJob, log: LogFunction, left_out: Callable[[str, Exception], None]
) -> list[Series]:
    """The share of equal labels, each checkout with its bundle, and both with the baseline's: then only the code differs."""
    found = []
    with tempfile.TemporaryDirectory() as place:
        for name in (SAME_LABELS, SAME_LABELS_OF_ONE_BUNDLE):
            log(name)
            try:
                if name == SAME_LABELS_OF_ONE_BUNDLE:
                    job = replace(job, bundle=str(checkout.bundle_for_both(folder, job.bundle, Path(place) / "bundle")))
                found.append(Series.of(OWN, name, "%", [checkout.same_labels(folder, job)]))
            except Exception as error:
                left_out(name, error)
    return found


def _sizes(session: ResultSession, job: BenchJob, log: LogFunction, budget: TimeBudget) -> list[Series]:
    """Rates of the clip scaled to several heights, and those of large frames over those of the smallest."""
    names = {height: f"{height}p, scaled" for height in HEIGHTS}
    found = {
        names[height]: (cliprl_contender.prepare, replace(job, clip=str(_scaled(job.clip, height, log))))
        for height in HEIGHTS
    }
    small = names[HEIGHTS[0]]
    first = found.pop(small)
    answers = measure_pairs(small, first, found, session.host, log, until=budget.until)
    series = stream.rate_series(stream.own_rounds(answers), small)[:1]
    for name, pair in answers.items():
        ratios = stream.pair_lead(PairedRounds(pair.other, pair.first), small, name)
        series += [*stream.rate_series(pair.other, name)[:1], *ratios]
    return series


def _starts(session: ResultSession, job: BenchJob, log: LogFunction, budget: TimeBudget) -> list[Series]:
    """Seconds from launch to the first painted frame in a file, warm and cold, in quiet rounds."""
    log("start: filling the cache")
    startup.one_round(job, session.folder)

    def one_round(turn: int, found: SortedRounds) -> tuple[Mapping[str, float], Sequence[str]]:
        log(f"start: round {turn + 1}, {found.quiet_count} of {job.rounds} quiet")
        watch = HostWatch()
        answer = startup.one_round(job, session.folder)
        reasons = session.host.note(turn + 1, "start", watch.reading())
        return {case: answer[case][0] for case in startup.CASES}, reasons

    found = quiet_rounds(one_round, job.rounds, job.most_rounds, log, until=budget.until())
    session.host.count_pair("start", found.quiet_count)
    answers = found.answers()
    return [Series.of(case, "wall time", "s", [[value] for value in answers[case]]) for case in startup.CASES]
