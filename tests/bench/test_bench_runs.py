"""The measurements themselves, on a tiny clip: what was planted must be found, and named."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from virtual_time import VirtualClock

from cliprl.bench import peers
from cliprl.bench.commands import scale, soak, stages, stream, suite, tracking
from cliprl.bench.commands.live_path import live
from cliprl.bench.commands.peers import measure as measure_peers
from cliprl.bench.commands.results import compare, figure_tables, readme
from cliprl.bench.commands.tracking import prepare_tracked
from cliprl.bench.fixtures import looped_source
from cliprl.bench.fixtures.looped_source import PacedSource
from cliprl.bench.harness import environment
from cliprl.bench.harness.clips import clip_file
from cliprl.bench.harness.registry import MEASUREMENTS, measurements
from cliprl.bench.harness.result import Result
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import in_fresh_process
from cliprl.bench.harness.timing import WARM_FRAMES, BenchJob, Runner, TaskOutcome, interleaved, timed_runs
from cliprl.bench.peers import PeerProgram, cliprl_contender, find_peer, timed, trial
from cliprl.engines import CliprlError, UsageError, available_cpus, open_bundle
from cliprl.pipeline import Frame, Overlay, Segmentation, Segmenter, Stream, open_source
from cliprl.pipeline.core.frame import FrameContext
from cliprl.pipeline.core.interfaces import PlaneAllocator, StreamInfo
from cliprl.pipeline.core.statistics import STAGES
from cliprl.pipeline.live.recording.recorder import Recording, recordings
from cliprl.pipeline.sources import FrameSource

FRAMES = 20
SLEEP = 0.02
WIDE = f"demo:?seconds=1&size=352x288&rate={FRAMES}"
DEMO = f"demo:?seconds=1&size=192x144&rate={FRAMES}"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(clip_file(DEMO, tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def job(clip: str) -> BenchJob:
    return BenchJob(clip, rounds=3, seconds=0.01, warm_up=0.0, spare=0)


@pytest.fixture(scope="module")
def session(clip: str, job: BenchJob) -> Iterator[ResultSession]:
    with ResultSession("stages", clip, job) as opened:
        yield opened


def stage_result(session: ResultSession, job: BenchJob) -> Result:
    """As `stages`, within this process, so that what is planted here is measured."""
    rounds = range(job.rounds)
    answers = {
        stages.ALONE: [stages.alone(job) for _ in rounds],
        stages.IN_PLACE: [stages.in_place(job) for _ in rounds],
    }
    return session.result(stages.series_of(answers), stages.METHOD)


def slow_draw(
    self: Overlay, frame: Frame, segmentation: Segmentation | None, status: str | None = None, draw: Any = Overlay.draw
) -> None:
    time.sleep(SLEEP)
    draw(self, frame, segmentation, status)


def test_a_planted_sleep_is_found_and_attributed(
    session: ResultSession, job: BenchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter()
    for module in (stages, cliprl_contender):
        monkeypatch.setattr(module, "Segmenter", lambda *_, **__: segmenter)
    # On a machine that others load, another stage may by chance take longer by more: then both are measured again.
    for _ in range(5):
        before = stage_result(session, job)
        with monkeypatch.context() as planted:
            planted.setattr(Overlay, "draw", slow_draw)
            after = stage_result(session, job)
        changes = compare.compare_results(before, after)
        found = compare.largest_change(changes)
        if found is not None and found.a.name == "draw":
            break
    assert found is not None
    assert found.a.name == "draw"
    assert f"Changed most: **draw** ({found.a.case})" in compare.format_comparison(before, after)
    for case in (stages.ALONE, stages.IN_PLACE):
        change = next(c for c in changes if (c.a.case, c.a.name) == (case, "draw"))
        assert change.verdict == "worse"
        assert change.difference > SLEEP * 500
    work = after.find(stages.CPU_WORK, "draw")
    assert work is not None
    assert work.digest().p50 < SLEEP * 500  # sleeping is no work


def test_stages_are_all_measured_and_bound_is_their_sum(session: ResultSession, job: BenchJob) -> None:
    result = stage_result(session, replace(job, rounds=1))
    for stage in STAGES:
        for case in (stages.ALONE, stages.IN_PLACE):
            series = result.find(case, stage)
            assert series is not None
            assert series.digest().n == FRAMES
    track = result.find(stages.WITH_IDS, stages.TRACK)
    assert track is not None
    assert track.digest().n == FRAMES
    work = [s.digest().p50 for s in result.series if s.case == stages.CPU_WORK and s.unit == "ms"]
    bound = result.find(stages.CPU_WORK, "bound")
    assert bound is not None
    assert bound.digest().p50 == pytest.approx(available_cpus() * 1000 / sum(work), rel=1e-3)


def test_the_stream_beside_the_plain_loop_in_fresh_processes(clip: str, job: BenchJob) -> None:
    told: list[str] = []
    with ResultSession("stream", clip, job) as session:
        result = stream.measure(session, replace(job, rounds=1), told.append)
    assert [text.split(" ", 1)[1] for text in told if text.startswith("starting ")] == [
        *(cliprl_contender.NAME, stages.BUSY, stages.ALONE, stream.PLAIN)
    ]
    assert [entry["case"] for entry in result.host["rounds"][-2:]] == [
        *(f"{cliprl_contender.NAME} beside {stream.PLAIN}", stream.PLAIN)
    ]
    latency, steps = (
        result.find(cliprl_contender.NAME, "latency"),
        result.find(cliprl_contender.NAME, "refinement steps"),
    )
    assert latency is not None
    assert latency.digest().n % FRAMES == 0
    assert steps is not None
    assert 0 <= steps.digest().p50 <= open_bundle().manifest.steps
    lead = result.find(cliprl_contender.NAME, f"fps over {stream.PLAIN}")
    assert lead is not None
    assert lead.digest().p50 == pytest.approx(rates_in(result, stream.PLAIN), rel=0.01)
    efficiency, bound = result.find(cliprl_contender.NAME, "efficiency"), result.find(stages.BUSY_WORK, "bound")
    assert efficiency is not None
    assert bound is not None
    own = next(e["fps"] for e in result.host["rounds"] if e["case"] == f"{cliprl_contender.NAME} beside {stages.BUSY}")
    assert efficiency.digest().p50 == pytest.approx(own / bound.digest().p50, rel=0.05)
    alone = result.find(stages.CPU_WORK, "bound")
    assert alone is not None


def rates_in(result: Result, other: str) -> float:
    """The ratio of the two rates that the host's readings hold for a pair."""
    own, rate = (
        e["fps"]
        for name in (f"{cliprl_contender.NAME} beside {other}", other)
        for e in result.host["rounds"]
        if e["case"] == name
    )
    return float(own / rate)


def test_tracking_is_measured_beside_the_stream_without_it(clip: str, job: BenchJob) -> None:
    answers = {
        name: [timed(prepare, job)]
        for name, prepare in ((cliprl_contender.NAME, cliprl_contender.prepare), (tracking.TRACKED, prepare_tracked))
    }
    found = {(series.case, series.name): series.digest() for series in tracking.series_of(answers)}
    rates = [found[case, "fps"].mean for case in (tracking.TRACKED, cliprl_contender.NAME)]
    assert found[tracking.TRACKED, f"fps over {cliprl_contender.NAME}"].p50 == pytest.approx(
        rates[0] / rates[1], rel=0.01
    )
    assert found[tracking.TRACKED, "track"].n % FRAMES == 0
    assert 0 < found[tracking.TRACKED, "track"].p50 < 100
    assert tracking.series_of({}) == []


@pytest.mark.parametrize(
    "name",
    [
        "OpenCV + OpenVINO loop",
        "OpenCV + OpenVINO loop, 1 thread",
        "OpenCV + ONNX Runtime loop",
        "PyAV decode",
        "PyAV decode and encode",
    ],
)
def test_peers_do_the_whole_clip(name: str, job: BenchJob, tmp_path: Path) -> None:
    if reason := find_peer(name).missing():
        pytest.skip(reason)
    runner = find_peer(name).prepare(job)
    assert runner(tmp_path / "out.mp4", None).frames == FRAMES
    if (tmp_path / "out.mp4").exists():
        with open_source(tmp_path / "out.mp4") as source:
            assert sum(1 for _ in source) == FRAMES
    assert runner(tmp_path / "out.mp4", 5).frames == 5


def test_the_torch_loop_runs_a_network_of_the_bundles_shape(job: BenchJob, tmp_path: Path) -> None:
    contender = find_peer("OpenCV + torch loop")
    if reason := contender.missing():
        pytest.skip(reason)
    assert contender.prepare(job)(tmp_path / "out.mp4", 2).frames == 2


def test_a_peer_that_fails_is_told_apart(job: BenchJob) -> None:
    assert trial(find_peer("PyAV decode").prepare, job) is None
    assert trial(heading, job) == "fails here with RuntimeError: Likely causes: 1. no FFmpeg"


def heading(job: BenchJob) -> Runner:
    raise RuntimeError("Likely causes:\n\n  1. no FFmpeg")


def test_missing_peer_is_skipped_with_the_reason(clip: str, job: BenchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = PeerProgram("absent", heading, "", ("no_such_module",), "pip install no-such-module")
    monkeypatch.setitem(peers._PEERS, "absent", absent)
    with ResultSession("peers", clip, job) as session:
        result = measure_peers(session, replace(job, rounds=1, frames=4), lambda text: None, ["absent"])
    assert result.cases() == [cliprl_contender.NAME]
    assert result.notes == ("absent skipped: no_such_module not installed: pip install no-such-module",)
    with pytest.raises(UsageError, match="unknown peer 'nobody'"):
        find_peer("nobody")


class Plain(FrameSource):
    """Grey frames without end, so that nothing but what is planted can leak."""

    def __init__(self) -> None:
        super().__init__(StreamInfo("grey", 48, 64, Fraction(1, 25), Fraction(25)))
        self._count = 0

    def _read(self, allocate: PlaneAllocator) -> Frame:
        luma, chroma = allocate(48, 64)
        luma.fill(128)
        chroma.fill(128)
        self._count += 1
        return Frame(luma, chroma, self._count, Fraction(1, 25), self._count)


def soak_with_leak(size: int) -> soak.MemoryGrowth:
    """Keeps so many bytes of every frame, written to, so that they are really there."""
    kept, output = [], Stream._write

    def leaky(self: Stream, context: FrameContext) -> None:
        output(self, context)
        kept.append(bytes([context.frame.index % 256]) * size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "_write", leaky)
        return soak.soak(Plain(), None, "null:", 8000)


@pytest.mark.parametrize("size", [0, 1024])
def test_a_planted_leak_is_found(size: int) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory is read from /proc")
    growth = in_fresh_process(soak_with_leak, size)
    assert growth.leaks() is bool(size), growth.verdict()
    assert ("LEAK" in growth.verdict()) is bool(size)
    assert len(set(growth.handles[5:])) <= 2


def test_a_buffer_that_fills_is_no_leak() -> None:
    frames = list(range(100, 10_100, 100))
    filling = soak.MemoryGrowth(frames, [100 + min(f, 5000) * 2e-3 for f in frames])
    leaking = soak.MemoryGrowth(frames, [100 + f * 1.024e-3 for f in frames])
    assert filling.leaks() is False
    assert leaking.leaks() is True
    assert leaking.slopes() == pytest.approx((1024, 1024))
    assert "too short" in soak.MemoryGrowth().verdict()


def test_paced_source_keeps_its_rate_for_any_clip_length(clip: str) -> None:
    with PacedSource(clip, 100, 50) as source:
        assert source.info.live
        start = time.monotonic()
        frames = list(source)
        elapsed = time.monotonic() - start
    assert [frame.index for frame in frames] == sorted({frame.index for frame in frames})
    assert len(frames) + source.missed == 50
    assert elapsed >= 49 / 100 - 0.001
    assert all(frame.times["due"] <= frame.times["captured"] for frame in frames)
    assert frames[-1].times["due"] - frames[0].times["due"] == pytest.approx((frames[-1].index - frames[0].index) / 100)


def test_a_looped_clip_is_opened_ahead_on_another_thread(clip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    monkeypatch.setattr(
        looped_source,
        "open_source",
        lambda name: (threads.append(threading.current_thread().name), open_source(name))[1],
    )
    with looped_source.RepeatedSource(clip) as source:
        length = source._inner.info.frames
        assert length is not None
        indexes = [frame.index for _ in range(2 * length + 1) if (frame := source.read()) is not None]
    assert indexes == list(range(2 * length + 1))
    assert threads[0] == threading.current_thread().name
    assert threading.current_thread().name not in threads[1:]


def test_a_late_reader_misses_what_a_driver_would_not_keep(clip: str) -> None:
    with PacedSource(clip, 200, 400) as source:
        source.read()
        time.sleep(0.3)  # sixty frames
        late = source.read()
    assert late is not None
    assert source.missed >= 50
    assert late.index == 1 + source.missed


def test_an_overloaded_live_stream_drops_and_says_where_it_saturates(
    tmp_path: Path, job: BenchJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = Overlay.draw

    def slow(self: Overlay, frame: Frame, segmentation: Segmentation | None, status: str | None = None) -> None:
        time.sleep(0.05)
        draw(self, frame, segmentation, status)

    monkeypatch.setattr(Overlay, "draw", slow)
    recorded: list[Recording] = []
    monkeypatch.setattr(live, "recordings", lambda *given: (recorded.extend(recordings(*given)), tuple(recorded))[1])
    run = live.one_rate(60, replace(job, clip=str(clip_file(WIDE, tmp_path)), seconds=2.0, warm_up=0.5), record=True)
    assert [recording.kind for recording in recorded] == ["overlay"]
    assert recorded[0].frames + run.missed >= len(run.samples["latency"])  # the warm-up's frames too
    assert run.offered == 120
    assert run.lost > 60  # at 50 ms a frame twenty a second can come out
    ages, shown = run.samples[live.GLASS], run.offered - run.lost
    assert len(ages) == shown
    assert all(age > 50 for age in ages)  # no frame is seen before it was drawn
    assert shown <= len(run.samples["latency"]) <= shown + 20  # what is lost is never written
    assert "saturates below 60 FPS" in live.saturation([60], {"60 FPS": [run]})
    series = {s.name: s for s in live.rate_series(60, [run])}
    assert series["delivered"].digest().p50 == pytest.approx((120 - run.lost) / 2)
    assert len(run.samples[live.MASK_AGE]) == len(run.samples["latency"])


class Screen:
    """Shows what it is told, second by second."""

    def __init__(self, *seconds: list[tuple[float, int | None]]) -> None:
        self._seconds = iter(seconds)

    def seen(self) -> list[tuple[float, int | None]]:
        return next(self._seconds)


def test_frames_never_displayed_are_lost_and_displayed_ones_aged(clip: str) -> None:
    with PacedSource(clip, 100, 20) as source:
        source._start = 0.0
        shown: list[tuple[float, int | None]] = [(0.05 + n / 100, n) for n in range(20)]
        unread = [*shown[:7], (0.5, None), *shown[8:10]]  # number 7 can't be read, 11 never came
        watcher = live._Watcher(source, Screen(unread, [], [shown[10], *shown[12:19]]), 5, 20)  # type: ignore[arg-type]
        watcher.cut()
        watcher.cut()
        watcher.cut(end=True)  # nor did the last one, 19
    assert [(part.offered, part.lost) for part in watcher.parts] == [(5, 0), (10, 2)]
    whole = live.join_runs(watcher.parts)
    assert (whole.offered, whole.lost) == (15, 2)
    assert whole.seconds == pytest.approx(0.15)
    ages = [age for age in whole.samples[live.GLASS] if not math.isnan(age)]
    assert ages == pytest.approx([50.0] * 12)


def test_a_live_run_that_is_cut_short_keeps_its_seconds(
    job: BenchJob, session: ResultSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (live.GLASS, live.MASK_AGE, cliprl_contender.LATENCY, cliprl_contender.STEPS_SERIES, *live.LIVE_STAGES)
    samples = {name: [10.0] * 30 for name in names}

    def run(function: Any, *arguments: Any, on_report: Any) -> Any:
        for _ in range(2):
            on_report(live.LiveRun(1.2, 30, 0, samples))
        raise KeyboardInterrupt

    monkeypatch.setattr("cliprl.bench.harness.timing.in_fresh_process", run)
    with pytest.raises(KeyboardInterrupt):
        live.measure(session, replace(job, rounds=1), lambda text: None, (25, 60))
    assert session.kept is not None
    assert session.kept.cases() == ["25 FPS"]
    assert session.kept.notes == ("keeps up with every rate tried, to 25 FPS",)
    seen = session.kept.find("25 FPS", live.GLASS)
    assert seen is not None
    assert seen.digest().n == 60


def test_a_picture_too_narrow_for_a_time_code_is_refused(job: BenchJob) -> None:
    with pytest.raises(UsageError, match="192 pixels wide: 320 are needed"):
        live.one_rate(25, job)


def test_more_classes_are_more_rows_of_text(tmp_path: Path) -> None:
    bundle = open_bundle()
    for count in (2, len(bundle.manifest.classes) + 3):
        wider = scale.with_class_count(bundle, count)
        assert len(wider.embeddings) == len(wider.manifest.classes) == count
    segmenter = Segmenter(scale.with_class_count(bundle, 5))
    with open_source(DEMO) as source:
        frame = source.read()
    assert frame is not None
    assert segmenter(frame).likeliest.probabilities.shape[0] == 5


def _count(n: int) -> int:
    return n + 1


def _fail() -> None:
    raise UsageError("as planned")


def _die() -> None:
    import os

    os._exit(3)


def test_fresh_processes_answer_fail_and_die_as_they_should() -> None:
    assert in_fresh_process(_count, 1) == 2
    with pytest.raises(UsageError, match="as planned"):
        in_fresh_process(_fail)
    with pytest.raises(CliprlError, match="died"):
        in_fresh_process(_die)


def test_rounds_take_turns() -> None:
    told: list[str] = []
    answers = interleaved({"a": (_count, (0,)), "b": (_count, (1,))}, 2, told.append)
    assert answers == {"a": [1, 1], "b": [2, 2]}
    assert [text[-1] for text in told] == ["a", "b", "b", "a"]


def test_warm_up_and_measuring_go_by_the_clock(job: BenchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, clock = list[int | None](), VirtualClock()
    monkeypatch.setattr("cliprl.bench.harness.timing.time", clock)

    def runner(out: Path, frames: int | None) -> TaskOutcome:
        calls.append(frames)
        clock.sleep(0.02)
        return TaskOutcome(FRAMES)

    runs = timed_runs(runner, replace(job, warm_up=0.1, seconds=0.2))
    warm = len(calls) - len(runs)
    assert warm >= 2
    assert calls[:warm] == [WARM_FRAMES] * warm
    assert calls[-1] == round(3 * 0.2 * FRAMES / 0.02)  # a slow contender's share of a long clip
    assert sum(run.seconds for run in runs) == pytest.approx(0.2, abs=0.021)
    with pytest.raises(CliprlError, match="no frame"):
        timed_runs(lambda out, frames: TaskOutcome(0), job)


def test_suite_writes_a_file_per_part_and_readme_figures(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, segmenter = BenchJob("", rounds=1, seconds=0.01, warm_up=0.0, spare=0), Segmenter()
    monkeypatch.setattr(
        "cliprl.bench.harness.timing.in_fresh_process", lambda function, *arguments, on_report: function(*arguments)
    )
    for module in (stages, cliprl_contender, live):
        monkeypatch.setattr(module, "Segmenter", lambda *_, **__: segmenter)
    measurements()
    for kind in ("stages", "live"):
        timing = {} if kind == "live" else {"suite": {"stages": {}}}
        quick = {"suite": {"live-25": {"rates": (25,), "seconds": 0.5}}} | timing
        monkeypatch.setitem(MEASUREMENTS, kind, replace(MEASUREMENTS[kind], defaults=short, **quick))
    for kind in MEASUREMENTS.keys() - {"stages", "live"}:
        monkeypatch.delitem(MEASUREMENTS, kind)
    monkeypatch.chdir(tmp_path)
    readme.FIGURES_README.parent.mkdir(parents=True)
    readme.FIGURES_README.write_text("\n".join(readme.FIGURE_MARKS[readme.FIGURES_README]))
    readme.ROOM_README.write_text("")
    suite.suite(str(clip_file(WIDE, tmp_path)))
    results = readme.committed_results()
    assert [result.kind for result in results] == ["live", "stages"]
    assert "--rate 25" in results[0].command
    assert "--seconds 0.5" in results[0].command
    assert results[0].method["seconds_a_round"] == 0.5
    assert [path.name.rpartition("core-")[2] for path in sorted(readme.RESULTS_FOLDER.glob("*.json"))] == [
        "live-25.json",
        "stages.json",
    ]
    assert readme.block_of(readme.FIGURES_README.read_text()) == figure_tables.figures(results)
    with pytest.raises(UsageError, match="no measurement 'speed'"):
        suite.suite(clip, only=["speed"])


def test_the_session_says_what_ran_where_and_how(session: ResultSession, clip: str, job: BenchJob) -> None:
    result = session.result([], {"includes": "x"}, ["note"])
    assert (
        result.command == f"cliprl-bench stages {Path(clip).name} --bundle small --rounds 3 --seconds 0.01 --warm-up 0"
    )
    assert result.input["size"] == "192x144"
    assert len(result.bundle["sha256"]) == 64
    assert result.method["rounds"] == 3
    assert str(Path(clip).parent) not in result.to_text()
    assert result.machine["libraries"]["openvino"]


def test_work_of_other_programs_is_noticed() -> None:
    watch = environment.LoadWatch()
    if watch.block()["load_average"] == [None, None]:
        pytest.skip("no load average here")
    assert environment.LoadWatch().block()["other_load"] is None  # too short to tell
    host = watch._watch
    assert host._start.busy is not None
    before = host._start.busy - 10.0 * host._kernel.processors
    host._start = replace(host._start, moment=host._start.moment - 10, busy=before)
    share = watch.block()["other_load"]
    assert share is not None
    assert share > 0.9
    assert math.isfinite(share)
