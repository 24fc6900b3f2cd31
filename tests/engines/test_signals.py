"""What a signal does to a command at any moment: while it loads, inside a library, twice, and after its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import typer

from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.signals import on_ending_signals

# Sends a signal to itself in place of loading the module `numpy`, or at the interpreter's end.
SCRIPT = """
import atexit, os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

def interrupt():
    os.kill(os.getpid(), signal.{number})

sys.meta_path.insert(0, Finder())
from {program} import main
atexit.register(interrupt)
main()
"""


@pytest.fixture(autouse=True)
def _usual_handlers() -> Iterator[None]:
    """Undo what a shell does to a command in the background: it ignores SIGINT, and nohup SIGHUP."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run_script(tmp_path: Path, name: str, program: str, *words: str, **values: str) -> tuple[int, str]:
    """Exit status and standard error of a console script that gets a signal."""
    script = tmp_path / name
    script.write_text(SCRIPT.format(program=program, **{"module": "", "number": "SIGINT"} | values))
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("cliprl-stream", "cliprl.pipeline.cli.main"),
        ("cliprl-train", "cliprl.models.cli.train"),
        ("cliprl-bench", "cliprl.bench.cli"),
    ],
)
def test_ctrl_c_while_libraries_load_is_one_line(tmp_path: Path, name: str, program: str) -> None:
    assert run_script(tmp_path, name, program, "--help", module="numpy") == (130, f"{name}: interrupted\n")


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_after_the_end_changes_nothing(tmp_path: Path, number: str) -> None:
    status, errors = run_script(tmp_path, "cliprl-engine", "cliprl.engines.cli.main", "inspect", "/", number=number)
    assert status == 1
    assert errors.startswith("cliprl-engine: ")
    assert len(errors.splitlines()) == 1


# C code calls Python after the interpreter's end, as libav does every tenth of a second in a thread that waits for a packet.
LATE_CALL = """
import ctypes
call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)
ctypes.CDLL(None).__cxa_atexit(call, None, None)
from cliprl.engines.cli.main import main
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
@pytest.mark.parametrize(("words", "status"), [(["inspect", "/"], 1), (["--help"], 0), (["no-command"], 2)])
def test_late_call_of_python_does_not_crash_the_end(tmp_path: Path, words: list[str], status: int) -> None:
    script = tmp_path / "cliprl-engine"
    script.write_text(LATE_CALL)
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status
    assert done.stdout if status == 0 else done.stderr.startswith(("cliprl-engine: ", "Usage"))


def run_status(app: typer.Typer) -> object:
    try:
        return run_app(app, "cliprl-test")
    except SystemExit as error:
        return error.code


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("raised", [None, ImportError("initialization failed"), RuntimeError("ended in C++")])
def test_a_signal_ends_a_command_though_a_library_hides_it(
    number: str,
    status: int,
    raised: Exception | None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    app, closed = typer.Typer(add_completion=False, pretty_exceptions_enable=False), []

    @app.command()
    def work() -> None:
        try:
            with suppress(*([] if raised is None else [BaseException])):
                signal.raise_signal(signal.Signals[number])
            raise raised or AssertionError("the signal did nothing")
        finally:
            closed.append(True)

    monkeypatch.setattr(sys, "argv", ["cliprl-test"])
    assert run_status(app) == status
    assert closed
    assert capfd.readouterr().err == ("cliprl-test: interrupted\n" if status == 130 else "")


def test_ignored_signals_stay_ignored_and_handlers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(sys, "argv", ["cliprl-test"])
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert run_app(app, "cliprl-test") == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        with on_ending_signals(lambda number: None):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_signal_that_a_wrapper_sends_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {10.0: signal.SIGINT, 10.01: signal.SIGINT, 10.02: signal.SIGTERM, 11.0: signal.SIGINT}
    clock, received = iter(sent), list[int]()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with on_ending_signals(received.append):
        for number in sent.values():
            signal.raise_signal(number)
    assert received == [signal.SIGINT, signal.SIGTERM, signal.SIGINT]
