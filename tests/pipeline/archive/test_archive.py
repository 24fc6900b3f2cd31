"""The parts of `cliprl-archive`: which videos, which jobs, what stays on disk, the table and the page."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from media import make_audio, make_clip
from rich.console import Console

from cliprl.engines import CliprlError, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.archive import command, journal, local_pool, ray_pool, table, worker
from cliprl.pipeline.archive import run as archive_run
from cliprl.pipeline.archive.driver import CRASHED_ATTEMPTS, KILLED_ATTEMPTS, ArchiveDriver, VideoOutcome
from cliprl.pipeline.archive.jobs import JobReply, VideoJob, content_hash, file_state, find_videos
from cliprl.pipeline.archive.journal import Journal
from cliprl.pipeline.archive.progress import ArchiveProgress, time_text
from cliprl.pipeline.archive.settings import EVENTS, ArchiveSettings, output_names
from cliprl.pipeline.archive.worker import WorkerSetup, perform

HEADER = {
    "format": "cliprl-events",
    "classes": [{"name": "tissue", "kind": "background"}, {"name": "shaft", "kind": "instrument"}],
}
FOUND = {"pixels": 9, "share": 0.1, "box": [1, 2, 3, 4]}


class PoolInThisProcess:
    """Runs each job with `perform` when its reply is asked for; `room` jobs at most are open."""

    def __init__(self, work: Callable[[VideoJob], JobReply], workers: int = 2) -> None:
        self.workers, self.work = workers, work
        self.open: list[VideoJob] = []
        self.most, self.closed = 0, False

    @property
    def room(self) -> int:
        return self.workers - len(self.open)

    def submit(self, job: VideoJob) -> None:
        self.open.append(job)
        self.most = max(self.most, len(self.open))

    def wait(self, timeout: float) -> list[tuple[VideoJob, JobReply]]:
        job = self.open.pop(0)
        return [(job, self.work(job))]

    def close(self) -> None:
        self.closed = True


def events(*frames: dict[str, Any]) -> str:
    common = {"pts": 0, "damaged": False, "segmented": True, "confidence": 0.9, "classes": {}}
    lines = [HEADER, *({**common, "index": i, "seconds": i / 25, **frame} for i, frame in enumerate(frames))]
    return "".join(json.dumps(line) + "\n" for line in lines)


class World:
    """A folder of files and its archive; jobs are performed by a stand-in that writes two frames of events."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder, self.journal = folder / "in", Journal(folder / "out")
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.runs: list[str] = []
        self.replies: dict[str, JobReply] = {}
        self.retry = False

    def work(self, job: VideoJob) -> JobReply:
        if not job.content:
            return JobReply("hashed", content_hash(job.source), file_state(job.source))
        self.runs.append(job.video)
        if job.video in self.replies:
            return self.replies[job.video]
        made = self.journal.new_folder()
        (made / EVENTS).write_text(events({}, {}))
        record = {
            "status": "done",
            "content": job.content,
            "video": job.video,
            "folder": job.folder,
            "state": job.state,
        }
        record |= {
            "outputs": [EVENTS],
            "frames": 2,
            "attempts": job.attempts + 1,
            "length": 0.08,
            "damaged": 0,
            "notes": [],
        }
        record |= {"instrument_frames": 1, "low_confidence_frames": 0}
        self.journal.publish(made, job.folder)
        self.journal.write_record(record)
        return JobReply("done", job.content, record=record)

    def run(self, workers: int = 2) -> tuple[ArchiveDriver, PoolInThisProcess]:
        if self.journal.lock < 0:
            self.journal.open(ArchiveSettings())
        self.runs.clear()
        pool = PoolInThisProcess(self.work, workers)
        driver = ArchiveDriver(self.folder, find_videos(self.folder).videos, self.journal, lambda outcome: None)
        driver.load(retry=self.retry)
        driver.run(pool)
        return driver, pool


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, {"a.mp4": "one", "sub/b.mp4": "two", "copy.mp4": "one"})


def test_videos_are_listed_by_suffix_in_all_folders(tmp_path: Path) -> None:
    for name in ("b.MP4", "x/a.mkv", "x/notes.txt", ".hidden.mp4", ".trash/c.mp4", "sound.m4a"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "gone.avi").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    found = find_videos(tmp_path)
    assert found.videos == {"b.MP4": 1, "gone.avi": 0, "sound.m4a": 1, "x/a.mkv": 1}
    assert found.others == ["pipe.mp4", "x/notes.txt"]


def test_outputs_are_kinds_or_names_of_files() -> None:
    assert output_names(["events,coco", "overlay.mkv"]) == (EVENTS, "labels.coco.json", "overlay.mkv")
    for word in ("foo", "x.xyz", "../a.mp4", "a/b.mp4", "rtsp://h/x", "null:", "", "live.m3u8"):
        with pytest.raises(UsageError):
            output_names([word])


def test_each_content_is_processed_once(world: World) -> None:
    driver, pool = world.run()
    assert sorted(world.runs) == ["a.mp4", "sub/b.mp4"]
    assert pool.most == 2
    assert {video: one.first for video, one in driver.outcomes.items()} == {
        "a.mp4": "",
        "copy.mp4": "a.mp4",
        "sub/b.mp4": "",
    }
    (world.folder / "sub" / "b.mp4").rename(world.folder / "renamed.mp4")
    again, _ = world.run()
    assert world.runs == []
    assert again.outcomes["renamed.mp4"].first == "sub/b.mp4"


def test_other_content_under_a_known_name_gets_another_folder(world: World) -> None:
    world.run()
    (world.folder / "a.mp4").write_text("three")
    driver, _ = world.run()
    assert world.runs == ["a.mp4"]
    record = driver.outcomes["a.mp4"].record
    assert record is not None
    assert record["folder"].startswith("videos/a.mp4~")
    assert (world.journal.videos / "a.mp4").is_dir()


def test_folders_differ_by_more_than_case(tmp_path: Path) -> None:
    names = ("a.mp4", "A.MP4", "a.mkv", "sub/b.mp4", "Sub/B.mp4", "caf\u00e9.mp4", "cafe\u0301.mp4")
    world = World(tmp_path, {name: name for name in names})
    driver, _ = world.run()
    assert all(outcome.good for outcome in driver.outcomes.values())
    folders = [record["folder"] for record in world.journal.records()]
    assert len({unicodedata.normalize("NFC", folder).casefold() for folder in folders}) == len(names)
    assert {"videos/a.mkv"} < set(folders)
    assert sum("~" in folder for folder in folders) == 3
    assert world.run()[1] is not None
    assert world.runs == []


@pytest.mark.parametrize("names", [("a.mp4", "a.mp4/x.mp4"), ("a.mp4/x.mp4", "a.mp4")])
def test_no_outputs_lie_in_those_of_another_video(tmp_path: Path, names: tuple[str, str]) -> None:
    world = World(tmp_path, {names[0]: "one"})
    world.run()
    shutil.rmtree(world.folder)
    (world.folder / names[1]).parent.mkdir(parents=True)
    (world.folder / names[1]).write_text("two")
    (world.folder / "b.mp4").write_text("three")
    driver, _ = world.run()
    assert all(outcome.good for outcome in driver.outcomes.values())
    folders = [Path(record["folder"]) for record in world.journal.records()]
    assert len(set(folders)) == 3
    assert not any(folder in other.parents for folder in folders for other in folders)
    assert all(world.journal.is_complete(record) for record in world.journal.records())


def test_a_video_whose_outputs_were_deleted_is_processed_again(world: World) -> None:
    world.run()
    shutil.rmtree(world.journal.videos / "sub")
    world.run()
    assert world.runs == ["sub/b.mp4"]


def test_failures_are_kept_until_retry(world: World) -> None:
    world.replies["a.mp4"] = JobReply("failed", reason=f"{world.folder}/a.mp4 is cut off", permanent=True)
    world.replies["sub/b.mp4"] = JobReply("failed", reason="too little memory")
    driver, _ = world.run()
    assert {one.video: one.reason for one in driver.outcomes.values()} == {
        "a.mp4": "is cut off",
        "copy.mp4": "is cut off",
        "sub/b.mp4": "too little memory",
    }
    world.run()
    assert world.runs == ["sub/b.mp4"]
    world.retry = True
    world.run()
    assert world.runs == ["a.mp4", "sub/b.mp4"]


@pytest.mark.parametrize(("signal", "attempts"), [(9, KILLED_ATTEMPTS), (11, CRASHED_ATTEMPTS), (0, KILLED_ATTEMPTS)])
def test_a_video_that_ends_its_worker_is_given_up(world: World, signal: int, attempts: int) -> None:
    world.replies["a.mp4"] = JobReply("crashed", signal=signal, reason="no message")
    driver, _ = world.run()
    assert world.runs.count("a.mp4") == attempts
    assert f"ended {attempts} times" in driver.outcomes["a.mp4"].reason
    assert driver.outcomes["sub/b.mp4"].good


def test_an_unreadable_file_does_not_stop_the_rest(world: World) -> None:
    setup = WorkerSetup(str(world.journal.out), "small", 1, ArchiveSettings())
    known = world.work

    def work(job: VideoJob) -> JobReply:
        return known(job) if job.content else perform(setup, job, "cpu")

    world.work = work  # type: ignore[method-assign]
    (world.folder / "gone.mp4").symlink_to("nowhere")
    driver, _ = world.run()
    assert driver.outcomes["gone.mp4"].reason.startswith("can't be read (No such file")
    assert driver.outcomes["a.mp4"].good


def test_an_unreadable_folder_does_not_stop_the_rest(world: World) -> None:
    """Also for a user who may read all: the path of the inner folders is longer than the system takes."""
    setup, known, long = WorkerSetup(str(world.journal.out), "small", 1, ArchiveSettings()), world.work, "x" * 250
    with ExitStack() as opened:
        place = os.open(world.folder, os.O_RDONLY)
        opened.callback(os.close, place)
        for _ in range(17):
            os.mkdir(long, dir_fd=place)
            place = os.open(long, os.O_RDONLY, dir_fd=place)
            opened.callback(os.close, place)
    world.work = lambda job: known(job) if "/x" not in job.source else perform(setup, job, "cpu")  # type: ignore[method-assign]
    driver, _ = world.run()
    (name,) = (video for video in driver.outcomes if video.startswith(long))
    assert name.endswith("x/")
    assert driver.outcomes[name].reason == "can't be read (File name too long): check its permissions and its disk"
    assert driver.outcomes["a.mp4"].good
    assert driver.outcomes["sub/b.mp4"].good


def test_a_full_disk_stops_the_run(world: World) -> None:
    world.replies["a.mp4"] = JobReply(
        "stopped", reason="can't write to 'out' (No space left on device): free some space"
    )
    with pytest.raises(CliprlError, match=r"free some space[.] Then run the same command again"):
        world.run()


def test_errors_of_the_place_are_no_failure_of_the_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup, job = (
        WorkerSetup(str(tmp_path), "small", 1, ArchiveSettings()),
        VideoJob("a.mp4", "a.mp4", "c", "videos/a.mp4"),
    )

    def fail(error: Exception) -> JobReply:
        def run(*arguments: object) -> JobReply:
            raise CliprlError("can't write 'x'") from error

        monkeypatch.setattr(worker, "_run", run)
        return perform(setup, job, "cpu")

    assert fail(OSError(errno.ENOSPC, "No space left on device")).kind == "stopped"
    too_large = fail(OSError(errno.EFBIG, "File too large"))
    assert (too_large.kind, too_large.permanent) == ("failed", False)
    assert fail(ValueError("bad data")).permanent
    monkeypatch.undo()
    assert perform(replace(setup, bundle="nothing"), job, "cpu").kind == "stopped"


def test_an_archive_refuses_other_settings_and_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Journal(tmp_path / "out")
    first.open(ArchiveSettings())
    monkeypatch.setattr(journal, "ORPHAN_SECONDS", 0.1)
    with pytest.raises(UsageError, match="another cliprl-archive writes to"):
        Journal(tmp_path / "out").open(ArchiveSettings())
    first.close()
    with pytest.raises(UsageError, match=r"steps not given there, '2' now; ids 'False' there, 'True' now"):
        Journal(tmp_path / "out").open(ArchiveSettings(steps=2, ids=True))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="holds files that are no archive"):
        Journal(tmp_path / "full").open(ArchiveSettings())


def test_published_outputs_replace_earlier_ones_as_a_whole(world: World) -> None:
    world.run()
    for text in ("1", "2"):
        made = world.journal.new_folder()
        (made / text).write_text(text)
        world.journal.publish(made, "videos/a.mp4")
    assert [path.name for path in (world.journal.videos / "a.mp4").iterdir()] == ["2"]


def frames_of(parts: Iterable[Path], target: Path) -> list[dict[str, Any]]:
    pytest.importorskip("pyarrow")
    table.merge_parts(parts, target)
    rows: list[dict[str, Any]] = table.import_module("pyarrow.parquet").read_table(target).to_pylist()
    return rows


def test_the_table_has_rows_of_frames_classes_and_instruments(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    instance = {"id": 3, "group": "instrument", "class": "shaft", "confidence": 0.5, **FOUND}
    (tmp_path / "e").write_text(events({"classes": {"shaft": FOUND}, "instances": [instance]}, {"confidence": 0.1}))
    table.write_part(tmp_path / "e", tmp_path / "p1", "a\udce9.mp4", "c1")
    (tmp_path / "e2").write_text(events({"segmented": False}))
    table.write_part(tmp_path / "e2", tmp_path / "p2", "b.mp4", "c2")
    rows = frames_of([tmp_path / "p1", tmp_path / "p2"], tmp_path / "all")
    assert [(row["video"], row["kind"], row["frame"], row["id"]) for row in rows] == [
        ("a\\xe9.mp4", "frame", 0, None),
        ("a\\xe9.mp4", "class", 0, None),
        ("a\\xe9.mp4", "instrument", 0, 3),
        ("a\\xe9.mp4", "frame", 1, None),
        ("b.mp4", "frame", 0, None),
    ]
    assert (rows[1]["name"], rows[1]["left"], rows[1]["height"]) == ("shaft", 1, 4)
    assert [row["segmented"] for row in rows] == [True, True, True, True, False], "a gap makes objects of truth values"
    totals = table.read_totals(tmp_path / "e")
    assert (totals.frames, totals.instrument_frames, totals.low_confidence_frames, totals.length) == (2, 1, 1, 0.08)


def call(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["cliprl-archive", *map(str, words)])
    return run_app(command.app, "cliprl-archive")


def test_a_worker_that_exits_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*arguments: object) -> JobReply:
        raise SystemExit(7)

    monkeypatch.setattr(worker, "_run", leave)
    job = VideoJob("a.mp4", "a.mp4", "c", "videos/a.mp4")
    reply = perform(WorkerSetup(str(tmp_path), "small", 1, ArchiveSettings()), job, "cpu")
    assert (reply.kind, reply.reason) == ("crashed", "ended by SystemExit 7")


@pytest.mark.parametrize(
    "change",
    [
        {"folder": None},
        {"state": 3},
        {"status": "other"},
        {"status": ["done"]},
        {"permanent": "no"},
        {"content": "other"},
    ],
)
def test_damaged_records_are_left_out(tmp_path: Path, change: dict[str, Any]) -> None:
    kept = Journal(tmp_path)
    kept._records.mkdir(parents=True)
    record = {"status": "failed", "video": "a.mp4", "folder": "videos/a.mp4", "state": [1, 2], "permanent": True}
    for name, value in {"c": record | {"content": "c"}, "d": record | {"content": "d"} | change, "e": [1]}.items():
        (kept._records / f"{name}.json").write_text(json.dumps(value))
    assert [found["content"] for found in kept.records()] == ["c"]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, with the bundle's networks at no refinement."""

    def pool(options: archive_run.ArchiveOptions, settings: ArchiveSettings, journal: Journal) -> PoolInThisProcess:
        setup = WorkerSetup(str(options.out), options.bundle, 1, settings)
        return PoolInThisProcess(lambda job: perform(setup, job, "cpu"))

    monkeypatch.setattr(archive_run, "_pool", pool)


def test_bad_input_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, empty = tmp_path / "in", tmp_path / "empty"
    empty.mkdir()
    folder.mkdir()
    (folder / "a.mp4").write_text("x")
    (tmp_path / "file").write_text("x")
    cases: list[tuple[list[str | Path], int, str]] = [
        ([tmp_path / "nowhere"], 2, "does not exist"),
        ([empty], 2, "holds no files"),
        ([tmp_path / "file"], 2, "is a file, not a folder"),
        ([folder, "-o", folder / "out"], 2, "lie in each other"),
        ([folder, "-o", tmp_path], 2, "lie in each other"),
        ([folder, "-o", tmp_path / "file"], 2, "is a file"),
        ([folder, "--outputs", "foo"], 2, "unknown output 'foo'"),
        ([folder, "--outputs", "ids"], 2, "give --ids too"),
        ([folder, "--polygons", "--outputs", "report"], 2, "add coco, cvat or labelstudio to --outputs"),
        ([folder, "--bundle", "nothing"], 2, "nothing"),
        ([folder, "--classes", "fork"], 2, "unknown class 'fork'"),
        ([folder, "--workers", "0"], 2, "--workers 0"),
        ([folder, "--gpu-workers", "1", "--ids"], 2, "--ids works on the CPU"),
        ([folder, "--gpu-workers", "1", "--outputs", "yolo"], 2, "leave out --gpu-workers"),
    ]
    for words, status, text in cases:
        out: list[str | Path] = [] if "-o" in words else ["-o", tmp_path / "out"]
        assert call(monkeypatch, *words, *out) == status, words
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert text in lines[0]


def test_an_absent_or_silent_ray_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_text("x")
    for installed, address, status, text in [
        (None, "auto", 2, "pip install 'cliprl[archive]'"),
        ("ray", "nonsense", 2, "no address of a Ray cluster"),
        ("ray", "127.0.0.1:1", 1, "no Ray cluster answers"),
    ]:
        monkeypatch.setattr(ray_pool, "find_spec", lambda name, found=installed: found)
        assert call(monkeypatch, tmp_path / "in", "-o", tmp_path / "out", "--ray", address) == status
        lines = capfd.readouterr().err.splitlines()
        assert len(lines) == 1
        assert text in lines[0]
    assert not (tmp_path / "out").exists()


def test_worker_that_cannot_be_started_names_its_own_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_text("x")
    for number, file, text in [
        (errno.EMFILE, None, "raise the limit of open files"),
        (errno.EAGAIN, None, "raise the limit of processes"),
        (errno.EACCES, "/opt/python", "'/opt/python' can't be used (Permission denied)"),
        (errno.EACCES, str(tmp_path / "out" / "x"), "out' (Permission denied)"),
        (errno.ENOSPC, None, "free some space, and run the same command again"),
    ]:
        start = Mock(side_effect=OSError(number, os.strerror(number), file))
        with monkeypatch.context() as patch:
            patch.setattr(tempfile, "tempdir", "/proc/nowhere")
            patch.setattr(local_pool.subprocess, "Popen", start)
            assert call(patch, tmp_path / "in", "-o", tmp_path / "out") == 1
        assert text in capfd.readouterr().err


@pytest.mark.usefixtures("in_process")
def test_a_run_lists_failures_and_makes_the_table_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "in <1>", tmp_path / "out"
    folder.mkdir()
    make_clip(folder / "good.mp4", frames=3)
    make_audio(folder / "sound.mp4")
    (folder / "empty.mp4").write_bytes(b"")
    words = (folder, "-o", out, "--outputs", "report", "--steps", "0", "--json")
    with monkeypatch.context() as without:
        for module in (archive_run, worker):
            without.setattr(module, "has_parquet", lambda: False)
        assert call(monkeypatch, *words) == 3
    printed = capfd.readouterr()
    summary = json.loads(printed.out)
    assert "pip install 'cliprl[archive]'" in printed.err
    assert (summary["done"], summary["failed"], summary["rows"]) == (1, 2, None)
    assert {one["video"]: one["reason"] for one in summary["failures"]} == {
        "empty.mp4": "is empty: make or copy it again",
        "sound.mp4": "has no video stream (it has audio): name a file with video",
    }
    page = (out / "index.html").read_text()
    assert "Archive: in &lt;1&gt;" in page
    assert "has no video stream" in page
    assert 'href="videos/good.mp4/report.html"' in page
    assert sorted(path.name for path in (out / "videos" / "good.mp4").iterdir()) == [EVENTS, "report.html"]
    assert list((out / ".archive" / "work").iterdir()) == []
    pytest.importorskip("pyarrow")
    assert call(monkeypatch, *words) == 3
    again = json.loads(capfd.readouterr().out)
    assert (again["new"], again["done"]) == (0, 1)
    assert again["rows"] >= 3
    assert (out / "events.parquet").is_file()


def test_quiet_prints_the_videos_that_fail(capfd: pytest.CaptureFixture[str]) -> None:
    progress = ArchiveProgress(Console(quiet=True), {"a.mp4": 100})
    progress.note("nothing of this")
    progress.add(VideoOutcome("a.mp4", None, "is empty: make or copy it again"))
    assert capfd.readouterr().err == "failed: a.mp4: is empty: make or copy it again\n"


def test_the_time_left_follows_the_bytes_of_this_run(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    driver, _ = world.run()
    progress = ArchiveProgress(Console(quiet=True), {"a.mp4": 100, "sub/b.mp4": 300, "copy.mp4": 100})
    assert progress.seconds_left() is None
    progress._started -= 10
    progress.add(replace(driver.outcomes["copy.mp4"], is_new=False))
    assert progress.seconds_left() is None
    progress.add(driver.outcomes["a.mp4"])
    left = progress.seconds_left()
    assert left is not None
    assert left >= 30
    assert progress.text().startswith("2 of 3 videos, 0:00:3")
    assert time_text(3723.4) == "1:02:03"
