"""`cliprl-archive` with real worker processes that are killed, and on two Ray nodes: each clip is done as by a single run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from cliprl.bench.commands.archive_runs.archive import check_archive, verdict_of
from cliprl.bench.fixtures.archive_inputs import make_clips
from cliprl.bench.fixtures.archive_kills import ARCHIVE, GRACE, KilledRun, alive_after, children_of, run_killed
from cliprl.bench.fixtures.ray_nodes import ray_nodes
from cliprl.engines import CliprlError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.pipeline.archive.jobs import content_hash
from cliprl.pipeline.cli import main as stream

SETTINGS = ["--steps", "0", "--no-status", "--precision", "f32"]
KINDS = ["--outputs", "events,report,coco,overlay"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "clips"
    make_clips(folder, 8, frames=3)
    return folder


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """`cliprl-stream` in this process, which loads the networks once."""

    def run(source: str, folder: Path, outputs: Sequence[str], words: Sequence[str]) -> int:
        folder.mkdir(parents=True)
        named = [word for name in outputs for word in ("-o", str(folder / name))]
        monkeypatch.setattr(sys, "argv", ["cliprl-stream", source, "-q", *named, *words])
        return run_app(stream.app, "cliprl-stream")

    return run


def test_kills_of_workers_and_driver_change_nothing(clips: Path, tmp_path: Path, single) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("pyarrow")
    contents = len({content_hash(str(path)) for path in clips.iterdir()})
    words = [str(clips), *KINDS, *SETTINGS, "--workers", "1", "-q"]
    run = run_killed(words, tmp_path / "out", contents, 3, 1, lambda text: None)
    check = check_archive(clips, tmp_path / "out", tmp_path / "alone", SETTINGS, lambda text: None, single)
    assert (run.workers_killed, run.drivers_killed, run.status) == (2, 1, 3)
    assert (check.good, check.bad) == (4, 4)
    assert (check.faults(), run.redone, run.orphans) == ([], [], 0), verdict_of(run, check)


def test_an_interrupted_run_ends_its_workers_and_goes_on_later(clips: Path, tmp_path: Path) -> None:
    command = [
        *ARCHIVE,
        str(clips),
        "-o",
        str(tmp_path / "out"),
        *SETTINGS,
        "--outputs",
        "events",
        "--workers",
        "1",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "out").glob(".archive/records/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    workers = children_of(process.pid)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert json.loads(printed)["done"] + json.loads(printed)["failed"] >= 1
    assert alive_after(workers, GRACE) == 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["failed"], summary["waiting"]) == (4, 4, 0)


def test_two_ray_nodes_do_what_single_runs_do(clips: Path, tmp_path: Path, single) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("ray")
    with ExitStack() as opened:
        try:
            address = opened.enter_context(ray_nodes([None, None]))
        except CliprlError as error:
            pytest.skip(str(error))
        words = [str(clips), "-o", str(tmp_path / "out"), *KINDS, *SETTINGS, "--ray", address]
        done = subprocess.run([*ARCHIVE, *words], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 3, done.stderr
    check = check_archive(clips, tmp_path / "out", tmp_path / "alone", SETTINGS, lambda text: None, single)
    assert (check.good, check.bad, check.faults()) == (4, 4, []), verdict_of(KilledRun(), check)
