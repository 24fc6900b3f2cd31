"""The commands that measure the live path's promises: a camera of known pictures, faults that strike, verdicts that can fail."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from live_faults import CLASSES, Make

from cliprl.bench.commands.live_path import faults, overload, watched_run
from cliprl.bench.commands.live_path.faults import (
    CAMERA_STALL,
    FAULTS,
    NO_FAULT,
    DisplayRecord,
    FaultObservation,
    FaultRun,
)
from cliprl.bench.commands.live_path.overload import OverloadRun, ShownFrame
from cliprl.bench.commands.live_path.watched_run import Gaps
from cliprl.bench.commands.results import check
from cliprl.bench.fixtures import timecode
from cliprl.bench.fixtures.timecoded_camera import LOOP, CodedCamera, coded_clip, numbers_in
from cliprl.bench.harness.clips import clip_file
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob
from cliprl.engines import UsageError
from cliprl.pipeline import open_source

DEMO = "demo:?seconds=1&size=352x288"
BUDGET = Path(__file__).resolve().parents[3] / "bench" / "budget.toml"


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("coded")
    return coded_clip(clip_file(DEMO, folder), 25, folder)


def test_the_camera_sends_every_picture_once_and_on_time(coded: Path) -> None:
    assert list(numbers_in(coded)) == list(range(LOOP))
    camera = CodedCamera(coded, 25)
    camera.start()
    with open_source(camera.url) as source:
        seen = []
        for _ in range(30):
            frame = source.read()
            assert frame is not None
            seen.append(timecode.read(frame.luma))
            number = seen[-1]
            assert number is not None
            assert 0 <= camera.age(number, time.monotonic()) < LOOP / 25
    camera.stop()
    first = seen[0]
    assert first is not None
    assert seen == list(range(first, first + 30))
    assert not camera.is_alive()


def test_a_picture_too_narrow_for_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="192 pixels wide: 320 are needed"):
        coded_clip(clip_file("demo:?seconds=1&size=192x144", tmp_path), 25, tmp_path)


def test_missing_and_repeated_frames_count_across_loop_ends() -> None:
    assert Gaps.of([LOOP - 2, LOOP - 1, 0, 1]) == Gaps(4, 0, 0, 0)
    assert Gaps.of([LOOP - 2, 1, 1, None, 3]) == Gaps(5, 2, 1, 1)
    assert Gaps.of([1, None, 4]) == Gaps(3, 1, 0, 1)
    assert Gaps.of([]) == Gaps(0, 0, 0, 0)


def test_the_verdict_on_a_long_run_names_what_broke() -> None:
    good = {"raw": Gaps(100, 0, 0, 0), "overlay": Gaps(100, 0, 0, 0)}
    assert watched_run.verdict([[40.0] * 100], [good]).startswith("held")
    assert "p99 150 ms" in watched_run.verdict([[150.0] * 100], [good])
    assert "2 frames missing in the raw" in watched_run.verdict([[40.0]], [good | {"raw": Gaps(98, 2, 0, 0)}])
    assert "no overlay recording" in watched_run.verdict([[40.0]], [good | {"overlay": Gaps(0, 0, 0, 0)}])


def observations() -> dict[str, FaultObservation]:
    """Ten seconds at 25 FPS a fault: no mask for half a second, the fault told in the meantime."""
    records = [
        DisplayRecord(n / 25, 0.01, None if n < 12 else n / 25, "planted has hung not a number signal 9")
        for n in range(250)
    ]
    found = {name: FaultObservation(0.0, 10.0, words, 0.0, list(records)) for name, words in FAULTS.items()}
    return found | {
        NO_FAULT: FaultObservation(0.0, 10.0, records=list(records)),
        CAMERA_STALL: FaultObservation(0.0, 3.0, marked_ms=400.0),
    }


def slow(*, late: str = "behind", told: float = 1.5) -> OverloadRun:
    """Ten seconds of too little of a processor: half of the pictures are 1.5 s old."""
    images = [
        ShownFrame(n / 10, 0.5, 0.52, "live") if n % 2 else ShownFrame(n / 10, 1.5, told, late) for n in range(100)
    ]
    return OverloadRun(10.0, images)


def watched(changed: dict[str, FaultObservation] | None = None, overloaded: OverloadRun | None = None) -> FaultRun:
    """A round in which all promises hold, but for what is changed."""
    return FaultRun(observations() | (changed or {}), 0, overloaded or slow())


def test_the_verdict_on_faults_names_what_broke() -> None:
    assert faults.verdict([watched()]).startswith("held")
    assert "50.0 % old and called live" in faults.verdict([watched(overloaded=slow(late="live"))])
    assert "latency wrong by 200 ms" in faults.verdict([watched(overloaded=slow(told=1.3))])
    assert "100.0 % old" in faults.verdict([watched(overloaded=OverloadRun(10.0, []))])
    assert observations()["is killed"].recovery == pytest.approx(12 / 25)
    assert observations()["is killed"].gap_ms() == pytest.approx(40)
    for name, broken, told in [
        ("raises", replace(observations()["raises"], message="else"), "raises: not reported"),
        (
            "is killed",
            replace(observations()["is killed"], records=observations()["is killed"].records[::2]),
            "is killed: 12.5 FPS",
        ),
        ("masks are NaN", replace(observations()["masks are NaN"], fault=-3.0), "back after 3."),
        ("masks are NaN", replace(observations()["masks are NaN"], fault=math.inf), "back after 10.0 s"),
        (CAMERA_STALL, replace(observations()[CAMERA_STALL], marked_ms=math.nan), "marked after nan"),
    ]:
        assert told in faults.verdict([watched({name: broken})])


def test_a_fault_strikes_in_the_segmenting_process_and_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "FAULTS", {"raises": "planted"})
    monkeypatch.setattr(faults, "_SPARE", 0.5)
    job = BenchJob(str(clip_file(DEMO, tmp_path)), seconds=1.5, warm_up=0)
    seen, _ = faults.observe_faults(job, Make(), CLASSES)
    assert set(seen) == {NO_FAULT, "raises", CAMERA_STALL}
    assert seen["raises"].fault >= seen["raises"].start
    assert not seen[CAMERA_STALL].marked_ms <= 0


def test_too_little_cpu_calls_no_old_frame_live(tmp_path: Path) -> None:
    """True ages are read off a clock in the picture, over a real socket, to the end of what comes after the camera's death."""
    job = BenchJob(str(clip_file("demo:?seconds=1&size=640x480", tmp_path)), seconds=4.0, warm_up=1.0)
    seen = overload.observe_overload(job, bundle=False)
    assert len(seen.frames) > 5
    assert overload.broken([seen]) == []


def broken_promises(kind: str, series: Sequence[Series]) -> list[str]:
    """The limits of the committed budget that these figures break."""
    limits = [limit for limit in check.read_budget(BUDGET) if limit.kind == kind]
    assert limits
    result = Result(kind, "", "", None, {}, {}, {}, {}, tuple(series))
    return [f"{f.limit.case}: {f.limit.name}" for f in check.check([result], limits) if not f.kept]


def test_the_budget_holds_faults_to_what_is_promised() -> None:
    half = replace(observations()["is killed"], records=observations()["is killed"].records[::2])
    never = replace(observations()["raises"], fault=math.inf)
    unmarked = replace(observations()[CAMERA_STALL], marked_ms=math.nan)
    assert broken_promises("faults", faults.series([watched()])) == []
    for name, sight, broken in [
        ("is killed", half, "is killed: frame rate"),
        ("raises", never, "raises: masks back after"),
        (CAMERA_STALL, unmarked, f"{CAMERA_STALL}: marked after"),
    ]:
        rounds = [watched(), watched({name: sight})]  # one good round hides nothing
        assert broken_promises("faults", faults.series(rounds)) == [broken]
    for overloaded, name in [
        (slow(late="live"), "older than 1 s and called live"),
        (slow(told=1.3), "error of the latency shown"),
    ]:
        rounds = [watched(), watched(overloaded=overloaded)]
        assert broken_promises("faults", faults.series(rounds)) == [f"{overload.CASE}: {name}"]


def test_the_budget_holds_a_long_run_to_what_is_promised() -> None:
    good = {kind: Gaps(200, 0, 0, 0) for kind in ("raw", "overlay")}
    assert broken_promises("watch", watched_run.series([[40.0] * 200], [good], [8.0])) == []
    assert broken_promises("watch", watched_run.series([[140.0] * 200], [good], [8.0])) == [
        f"{watched_run.CASE}: latency at the viewer"
    ]
    assert broken_promises("watch", watched_run.series([[]], [good], [8.0])) == [
        f"{watched_run.CASE}: latency at the viewer"
    ]
    for gaps, broken in [(Gaps(199, 1, 0, 0), "missing"), (Gaps(0, 0, 0, 0), "frames")]:
        series = watched_run.series([[40.0] * 200], [good | {"raw": gaps}], [8.0])
        assert broken_promises("watch", series) == [f"raw recording: {broken}"]


def test_the_program_is_watched_and_its_recordings_are_searched(tmp_path: Path) -> None:
    pytest.importorskip("aiortc", reason="the extra `live` is not installed")
    clip = str(clip_file(DEMO, tmp_path))
    job = BenchJob(clip, rounds=1, seconds=2.0, warm_up=0.5)
    with ResultSession("watch", clip, job) as session:
        result = watched_run.measure(session, job, lambda text: None)
    for kind in ("raw", "overlay"):
        frames, missing = (result.find(f"{kind} recording", name) for name in ("frames", "missing"))
        assert frames is not None
        assert missing is not None
        assert frames.rounds[0][0] > 0
    latency = result.find(watched_run.CASE, "latency at the viewer")
    assert latency is not None
    assert all(ms > 0 for ms in latency.rounds[0])
