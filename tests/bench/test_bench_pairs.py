"""Pairs take turns in processes that stay ready; the headline figures and their agreement."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from host_readings import QUIET, STOLEN, result_of
from media import make_clip

from cliprl.bench.commands import stages
from cliprl.bench.commands.headline import checkout, headline, work
from cliprl.bench.commands.headline.acceptance import GOALS, acceptance
from cliprl.bench.commands.results.check import Limit, read_budget
from cliprl.bench.commands.results.compare import headline_agreement
from cliprl.bench.harness.clips import scaled_clip
from cliprl.bench.harness.host import HostLog, HostReading
from cliprl.bench.harness.pairs import PairedRounds, measure_pair, measure_pairs
from cliprl.bench.harness.registry import MEASUREMENTS, measurements
from cliprl.bench.harness.result import Result, Series, read_result
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction, Runner, TaskOutcome, TimedRun, timed_runs
from cliprl.bench.peers import all_peers
from cliprl.bench.peers.baseline_loop import Image
from cliprl.bench.peers.nth_frame import EveryNthFrame
from cliprl.engines import CliprlError, UsageError, open_bundle
from cliprl.engines.bundle.confidence import CONFIDENCE_FILE
from cliprl.pipeline import open_source
from cliprl.pipeline.core.statistics import STAGES

ROOT = Path(__file__).resolve().parents[2]
JOB = BenchJob("", rounds=2, seconds=0.01, warm_up=0.0, spare=2)


def prepare_steady(job: BenchJob) -> Runner:
    """A runner of seven frames in two milliseconds."""

    def run(out: Path, frames: int | None) -> TaskOutcome:
        time.sleep(0.002)
        return TaskOutcome(7)

    return run


def prepare_failing(job: BenchJob) -> Runner:
    raise UsageError("as planned")


def test_pairs_take_turns_in_processes_that_stay_ready() -> None:
    host, told = HostLog(1), list[str]()
    job = replace(JOB, rounds=1, spare=0)
    failed: list[str] = []
    others = {"b": (prepare_steady, job), "c": (prepare_failing, job)}
    answers = measure_pairs(
        *("a", (prepare_steady, job), others, host, told.append),
        left_out=lambda name, error: failed.append(f"{name}: {error}"),
    )
    assert failed == ["c: as planned"]
    assert [run.outcome.frames for run in answers["b"].other[0]][:1] == [7]
    assert [entry["case"] for entry in host.entries] == ["a beside b", "b"]
    assert host.entries[0]["fps"] > 0
    assert list(host.quiet_by) == ["b"]


class Turns:
    """Stands for a ready process: gives its readings in turn, and counts its turns."""

    def __init__(self, name: str, *readings: HostReading) -> None:
        self.name, self._readings, self.count = name, list(readings), 0

    def measure(self) -> tuple[list[TimedRun], HostReading]:
        self.count += 1
        return [TimedRun(TaskOutcome(self.count), 1.0, 1.0)], self._readings[self.count - 1]


def pair_of(
    first: Turns, other: Turns, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[PairedRounds, HostLog]:
    monkeypatch.setattr("cliprl.bench.harness.timing.wait_until_quiet", lambda seconds: QUIET)
    host = HostLog(2)
    return measure_pair(first, other, JOB, host, lambda text: None, **options), host  # type: ignore[arg-type]


def test_a_disturbed_turn_spoils_both_of_its_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = Turns("a", QUIET, STOLEN, QUIET, QUIET), Turns("b", QUIET, QUIET, QUIET, QUIET)
    pair, host = pair_of(first, other, monkeypatch)
    assert [runs[0].outcome.frames for runs in pair.first] == [1, 3]
    assert [runs[0].outcome.frames for runs in pair.other] == [1, 3]
    assert host.quiet_by == {"b": 2}
    order = [entry["case"] for entry in host.entries]
    assert order == ["a beside b", "b", "b", "a beside b", "a beside b", "b"]


def test_no_round_is_repeated_after_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, host = pair_of(Turns("a", STOLEN, STOLEN), Turns("b", QUIET, QUIET), monkeypatch, until=0.0)
    assert len(pair.first) == 1  # disturbed, but there is no other
    assert host.block()["quiet_rounds_by_pair"] == {"b": 0}


def test_time_is_shared_by_the_parts_that_are_left() -> None:
    budget, now = headline.TimeBudget(90.0, 3), time.monotonic()
    assert budget.until() - now == pytest.approx(30, abs=5)
    assert budget.until() - now == pytest.approx(45, abs=5)
    assert budget.until() - now == pytest.approx(90, abs=5)
    assert budget.until() - now == pytest.approx(90, abs=5)
    assert headline.TimeBudget(-5.0, 1).until() <= time.monotonic()


def test_goals_name_rows_that_are_measured() -> None:
    limits = read_budget(ROOT / "bench" / "headline.toml")
    run = TimedRun(TaskOutcome(5), 1.0, 0.2)
    pair = PairedRounds([[run]], [[replace(run, cpu_seconds=0.1)]])
    names = {*headline.RIVALS, checkout.NAME}
    assert set(headline.RIVALS) <= set(all_peers())
    found = {(s.case, s.name) for s in headline.pair_series(dict.fromkeys(names, pair))}
    rows = {(limit.case, limit.name) for limit in limits if limit.kind == "headline" and limit.case == headline.OWN}
    assert rows - found == {(headline.OWN, "efficiency"), (headline.OWN, "labels as the baseline")}
    ratio = next(s for s in headline.pair_series({checkout.NAME: pair}) if s.name == "CPU work over the baseline")
    assert ratio.digest().p50 == 2.0


def test_baseline_counts_the_work_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    class Process:
        def __init__(self, folder: Path, job: BenchJob) -> None: ...

        def run(self, out: Path, frames: int | None) -> dict[str, float]:
            return {"frames": 5, "cpu": 40.0}

    monkeypatch.setattr(checkout, "CheckoutProcess", Process)
    (run,) = timed_runs(checkout.prepare_checkout(JOB, ROOT), replace(JOB, seconds=0.0))
    assert (run.outcome.frames, run.cpu_seconds) == (5, 40.0)


def test_labels_of_two_checkouts_are_compared_frame_by_frame() -> None:
    one = np.zeros((2, 4, 5), np.uint8)
    other = one.copy()
    other[1, 0] = 3
    assert checkout.agreement(one, other) == [100.0, 75.0]
    with pytest.raises(CliprlError, match="input size"):
        checkout.agreement(one, other[:, :2])


def test_a_bundle_for_both_checkouts_has_no_confidence(tmp_path: Path) -> None:
    shipped = open_bundle("small")
    bundle = open_bundle(checkout.bundle_for_both(ROOT, "small", tmp_path / "named"))
    assert shipped.confidence is not None
    assert bundle.confidence is None
    assert bundle.manifest.hashes == {k: v for k, v in shipped.manifest.hashes.items() if k != CONFIDENCE_FILE}
    assert open_bundle(checkout.bundle_for_both(ROOT, str(shipped.path), tmp_path / "folder")).confidence is None


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    assert checkout.check_checkout(ROOT) == ROOT
    with pytest.raises(UsageError, match="lacks engines, pipeline"):
        checkout.check_checkout(tmp_path)
    assert checkout.commit_of(tmp_path) == "unknown"
    broken = tmp_path / "broken"
    for room in checkout.ROOMS:
        (broken / room).mkdir(parents=True)
        (broken / room / "__init__.py").write_text("raise SystemExit('no such version')")
    with pytest.raises(CliprlError, match="no such version"):
        checkout.CheckoutProcess(broken, BenchJob("absent.mp4"))


def test_headline_rows_agree_or_the_host_is_named() -> None:
    limits = [Limit("stream", "cliprl-stream", "fps", min=1.0)]
    quiet = result_of(60.0, 1, QUIET)
    assert headline_agreement(quiet, result_of(63.0, 1, QUIET), limits) == (
        *(True, "All 1 headline rows agree within 10%."),
    )
    agrees, text = headline_agreement(quiet, result_of(40.0, 1, QUIET), limits)
    assert not agrees
    assert "fps (60.0 and 40.0 FPS)" in text
    agrees, text = headline_agreement(quiet, result_of(40.0, 0, STOLEN), limits)
    assert agrees
    assert "B: disturbed by the host (none was quiet, so all count): round 1, cliprl-stream" in text


def test_a_pair_without_quiet_rounds_is_not_judged() -> None:
    host = HostLog(1)
    host.note(1, "x", QUIET)
    host.count_pair("x", 1)
    host.count_pair("1080p, scaled", 0)
    result = replace(result_of(60.0, 0), host=host.block(), series=(Series.of("a", "b", "s", [[1.0]]),))
    assert result.judged("cliprl-stream", "fps over x")
    assert not result.judged("1080p, scaled", "fps")
    assert not result.judged()


def test_a_mask_serves_the_frames_in_between() -> None:
    class Numbered:
        count = 0

        def __call__(self, image: Image) -> Image:
            self.count += 1
            return np.full((1, 1), self.count, np.uint8)

        def reset(self) -> None:
            self.count = 10

    segment = EveryNthFrame(Numbered(), 3)
    image = np.zeros((2, 2, 3), np.uint8)
    assert [int(segment(image)[0, 0]) for _ in range(7)] == [11, 11, 11, 12, 12, 12, 13]
    segment.reset()
    assert int(segment(image)[0, 0]) == 11


def test_work_of_stages_is_summed_and_compared_in_each_round() -> None:
    ours = dict.fromkeys(STAGES, 1.0)
    series = work.series_of({work.CASE: [ours, ours], checkout.NAME: [ours, dict.fromkeys(STAGES, 4.0)]})
    found = {(one.case, one.name): one for one in series}
    assert found[checkout.NAME, work.SUM].rounds == ((len(STAGES),), (4.0 * len(STAGES),))
    assert found[work.CASE, "CPU work over the baseline"].rounds == ((1.0,), (0.25,))
    assert not work.series_of({work.CASE: [], checkout.NAME: []})[-1].rounds


def test_stages_of_a_checkout_are_measured(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=4)
    job = BenchJob(str(clip), frames=3)
    with checkout.CheckoutProcess(None, job, work.STAGES_TASK) as process:
        found = process.run(tmp_path / "out.mp4", 3)
    assert set(found) == set(STAGES)
    assert all(value > 0 for value in found.values())
    assert (tmp_path / "out.mp4").stat().st_size > 0


def test_acceptance_holds_both_runs_to_the_goals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = iter([0.95, 0.94, 0.95, 0.6])

    def measure_one(
        session: ResultSession, job: BenchJob, log: LogFunction, minutes: float, baseline: Path | None
    ) -> Result:
        assert job.rounds == 4
        assert 0 < minutes <= 1
        return session.result([Series.of("cliprl-stream", "efficiency", "of bound", [[next(figures)]])], {})

    known = replace(measurements()["headline"], measure=measure_one)
    monkeypatch.setitem(MEASUREMENTS, "headline", known)
    clip = "demo:?seconds=1&size=96x64&rate=4"
    acceptance(clip, tmp_path, 2, 1.0, 4, None, GOALS, "small")
    shown = capsys.readouterr().out
    assert "run 2: kept: headline, cliprl-stream: efficiency, p50 is 0.940, must be at least 0.9" in shown
    assert "run 1: not measured: headline, warm: wall time, p50" in shown
    assert "All 1 headline rows agree within 10%." in shown
    assert "--minutes 0.5" in read_result(tmp_path / "headline-2.json").command
    with pytest.raises(typer.Exit):
        acceptance(clip, tmp_path, 2, 1.0, 4, None, GOALS, "small")
    shown = capsys.readouterr().out
    assert "run 2: BREACH" in shown
    assert "efficiency (0.950 and 0.600 of bound)" in shown


def test_clips_are_scaled_with_their_aspect_ratio(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=6)
    with open_source(clip) as before, open_source(scaled_clip(clip, 90, tmp_path / "scaled.mp4", 4)) as after:
        assert after.info.height == 90
        assert after.info.width == pytest.approx(90 * before.info.width / before.info.height, abs=1)
        assert sum(1 for _ in after) == 4


def test_a_load_rests_before_the_next_turn() -> None:
    load = object.__new__(stages.StageLoad)
    load._on, load._running = on, running = threading.Event(), threading.Event()  # type: ignore[assignment]

    def follow() -> None:
        for event in (on.is_set, lambda: not on.is_set()):
            while not event():
                time.sleep(0.005)
            time.sleep(0.1)  # the pass that it is in
            (running.clear if running.is_set() else running.set)()

    thread = threading.Thread(target=follow)
    thread.start()
    load.switch(on=True)
    assert running.is_set()
    load.switch(on=False)
    assert not running.is_set()
    thread.join()
