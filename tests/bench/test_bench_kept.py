"""What is measured when a measurement ends early is kept, and nothing goes on after it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from cliprl.bench.commands import soak
from cliprl.bench.harness import timing
from cliprl.bench.harness.clips import clip_file
from cliprl.bench.harness.result import SCHEMA, UNFINISHED, check_place, read_result
from cliprl.bench.harness.result_session import ResultSession, unfinished_path
from cliprl.bench.harness.subprocess_call import ended_by_parent, in_fresh_process, send_value
from cliprl.bench.harness.timing import Answers, BenchJob, interleaved
from cliprl.engines import CliprlError, UsageError

DEMO = "demo:?seconds=1&size=192x144&rate=20"
LIMIT = 180.0


def _reporting(folder: Path) -> None:
    (folder / "pid").write_text(f"{os.getpid()}")
    try:
        send_value("begun")
        time.sleep(10 * LIMIT)
    finally:
        (folder / "tidied").touch()


def test_a_process_reports_and_ends_with_the_measurement(tmp_path: Path) -> None:
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_fresh_process(_reporting, tmp_path, on_report=hear)
    assert heard == ["begun"]
    assert (tmp_path / "tidied").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def _terminated_while_it_ends() -> None:
    def terminate() -> None:
        threading.main_thread().join()  # until the interpreter waits for this thread
        os.kill(os.getpid(), signal.SIGTERM)

    with ended_by_parent():
        threading.Thread(target=terminate).start()


def test_a_process_that_is_ending_ignores_termination(capfd: pytest.CaptureFixture[str]) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_terminated_while_it_ends)
    process.start()
    process.join(LIMIT)
    assert (process.exitcode, capfd.readouterr().err) == (0, "")


def _add(n: int) -> int:
    return n + 1


def kept_of(monkeypatch: pytest.MonkeyPatch, calls: int) -> list[tuple[Answers, int]]:
    """What two tasks and three rounds keep when call number `calls` is cut short, after one report."""
    kept: list[tuple[Answers, int]] = []
    left = iter(range(calls - 1))

    def run(function: Callable[..., Any], *arguments: Any, on_report: Callable[[Any], None]) -> Any:
        on_report(100)
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*arguments)

    def keep(answers: Answers, rounds: int) -> None:
        kept.append(({name: list(values) for name, values in answers.items()}, rounds))

    monkeypatch.setattr(timing, "in_fresh_process", run)
    with pytest.raises(KeyboardInterrupt):
        interleaved({"a": (_add, (0,)), "b": (_add, (1,))}, 3, lambda text: None, keep, sum)
    return kept


def test_all_rounds_and_values_of_interrupted_tasks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept_of(monkeypatch, 1) == [({"a": [100]}, 0)]
    assert kept_of(monkeypatch, 2)[-1] == ({"a": [1], "b": [100]}, 0)
    assert kept_of(monkeypatch, 3)[-2:] == [({"a": [1], "b": [2]}, 1), ({"a": [1], "b": [2, 100]}, 1)]


def test_a_soak_that_is_cut_short_keeps_its_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output, wanted = tmp_path / "r.json", BenchJob("", rounds=1, seconds=0, warm_up=0)

    def run(function: Callable[..., Any], *arguments: Any, on_report: Callable[[Any], None]) -> Any:
        for reading in range(1, 9):
            on_report((100 * reading, 50.0 + reading, 7, 3, 1.5))
        raise CliprlError("the measured process died")

    monkeypatch.setattr(timing, "in_fresh_process", run)
    with ResultSession("soak", DEMO, wanted, output=output) as session, pytest.raises(CliprlError):
        soak.measure(session, wanted, lambda text: None, 100_000)
    assert not output.exists()
    result = read_result(unfinished_path(output))
    memory = result.find("cliprl-stream", "memory")
    assert memory is not None
    assert memory.rounds == ((51.0, 52.0, 53.0, 54.0, 55.0, 56.0, 57.0, 58.0),)
    assert result.notes[1].startswith("800 of 100000 frames in ")
    assert result.warnings()[0] == "unfinished: ended in round 1 of 1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_command_and_keeps_the_rounds(tmp_path: Path, number: int) -> None:
    clip, output = clip_file(DEMO, tmp_path), tmp_path / "new" / "r.json"
    words = ["peers", str(clip), "--peer", "PyAV decode", "--rounds", "1000", "--seconds", "0.1", "--warm-up", "0"]
    run = subprocess.Popen(
        [sys.executable, "-m", "cliprl.bench", *words, "-o", str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        until(
            lambda: (
                unfinished_path(output).exists()
                and "round 2" in str(read_result(unfinished_path(output)).method[UNFINISHED])
            )
        )
        # As a terminal does it, and as an init system does it.
        os.killpg(run.pid, number) if number != signal.SIGTERM else run.send_signal(number)
        told, complaint = run.communicate(timeout=LIMIT)
    finally:
        run.kill()
    assert run.returncode == 128 + number, complaint
    assert "Traceback" not in complaint
    assert f"kept in {unfinished_path(output)}" in complaint
    assert "| PyAV decode | fps | FPS |" in told
    assert not output.exists()
    result = read_result(unfinished_path(output))
    fps = result.find("PyAV decode", "fps")
    assert fps is not None
    assert len(fps.rounds) >= 1
    assert result.warnings()[0].startswith("unfinished: ended in round ")


def test_unwritable_place_is_reported_before_any_measurement(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="another place"):
        check_place(tmp_path)
    old = f'{{"schema": "{SCHEMA}", "version": 1}}'
    (tmp_path / "r.json").write_text(old)
    check_place(tmp_path / "r.json")
    check_place(tmp_path / "new.json")
    assert (tmp_path / "r.json").read_text() == old
    assert not (tmp_path / "new.json").exists()
