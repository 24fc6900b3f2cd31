"""How a command ends, whatever went wrong in it."""

from __future__ import annotations

import errno
import gc
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from rich.console import Console

from cliprl.engines import CliprlError, EngineError, UsageError
from cliprl.engines.cli.cli_runner import run_app
from cliprl.engines.cli.console import reporting_errors

PROGRAM = "cliprl-test"


def noted_error() -> CliprlError:
    """An error of a run with what could not be finished after it, and with a traceback."""
    error = CliprlError("it can't run")
    error.add_note("nor could its file be finished")
    error.add_note("Traceback\n  of another process")
    return error


ERRORS = {
    "failed": EngineError("it can't\nrun"),
    "misused": UsageError("no such thing"),
    "unwritable": UsageError("no class 'a\ud800\x1b\udcff'"),
    "interrupted": KeyboardInterrupt(),
    "full": OSError(errno.ENOSPC, "No space left on device", "/data/out.bin"),
    "copied": OSError(errno.ENOSPC, "No space left on device", "/data/in.bin", None, "/data/copy.bin"),
    "sent": OSError(errno.EROFS, "Read-only file system"),
    "temporary": FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    "unforeseen": KeyError("here\nand there"),
    "noted": noted_error(),
}


def end(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Exit status and what stands on standard error of a program run with these words."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def work(
        how: Annotated[str, typer.Argument()],
        status: Annotated[int, typer.Option("-s", "--status", max=99)] = 0,
        gap: Annotated[float, typer.Option(min=0)] = 0.0,
    ) -> None:
        if how in ERRORS:
            raise ERRORS[how]
        if how == "start":
            subprocess.run([sys.executable, "-S", "-c", "import token"], check=True)
        raise typer.Exit(status)

    monkeypatch.setattr(sys, "argv", [PROGRAM, *words])
    return run_app(app, PROGRAM), capfd.readouterr().err


def test_a_program_collects_garbage_once_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    frozen = gc.get_freeze_count()
    gc.disable()
    try:
        assert end(monkeypatch, capfd, "well")[0] == 0
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.enable()
        gc.unfreeze()


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["well"], 0, ""),
        (["well", "-s", "7"], 7, ""),
        (["failed"], 1, "cliprl-test: it can't run\n"),
        (["noted"], 1, "cliprl-test: it can't run; nor could its file be finished\n"),
        (["misused"], 2, "cliprl-test: no such thing\n"),
        (["unwritable"], 2, "cliprl-test: no class 'a\\ud800\\x1b\\xff'\n"),
        (["interrupted"], 130, "cliprl-test: interrupted\n"),
        (
            ["full"],
            1,
            "cliprl-test: '/data/out.bin' can't be used (No space left on device): free some space, or give another place\n",
        ),
        (
            ["copied"],
            1,
            "cliprl-test: '/data/copy.bin' can't be used (No space left on device): free some space, or give another place\n",
        ),
        (
            ["sent"],
            1,
            "cliprl-test: a file of this run can't be used (Read-only file system): give a place that this user may read and "
            "write\n",
        ),
        (
            ["temporary"],
            1,
            "cliprl-test: No usable temporary directory found in ['/tmp']: set TMPDIR to a folder that can be written\n",
        ),
        (["well", "--gap", "2"], 0, ""),
        (["well", "--gap", "nan"], 2, "cliprl-test: --gap is 'nan': it must be a finite number\n"),
        (["well", "--gap=-Infinity"], 2, "cliprl-test: --gap is '-Infinity': it must be a finite number\n"),
    ],
)
def test_every_end_has_its_status_and_its_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str], status: int, line: str
) -> None:
    ended, printed = end(monkeypatch, capfd, *words)
    # Some versions of typer begin a new line after Ctrl-C, away from the "^C" of the terminal.
    assert (ended, printed.lstrip("\n")) == (status, line)


@pytest.mark.parametrize("words", [["well", "--status=100"], ["well", "-s", "100"], ["well", "-s", "many"]])
def test_a_refused_value_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], words: list[str]
) -> None:
    status, line = end(monkeypatch, capfd, *words)
    assert status == 2
    assert words[-1].removeprefix("--status=") in line
    assert line.endswith("See cliprl-test --help\n")
    assert line.count("\n") == 1


def test_unexpected_error_is_one_line_and_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, line = end(monkeypatch, capfd, "unforeseen")
    (kept,) = tmp_path.iterdir()
    assert status == 1
    assert line.startswith("cliprl-test: unexpected KeyError")
    assert line.endswith(f"Report it with {kept}\n")
    assert "raise ERRORS[how]" in kept.read_text()


def test_child_processes_import_nothing_from_the_current_folder(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token.py").write_text("raise SystemExit('a module of the user')")
    assert end(monkeypatch, capfd, "start") == (0, "")
    assert "PYTHONSAFEPATH" not in os.environ


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_on_a_terminal_only(terminal: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, _environ={"TERM": "xterm"})
    with reporting_errors(console) as log:
        log("compiling [small]")
        log("comparing")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "compiling [small]" in shown
    assert "comparing" in shown
    assert ("0:00:0" in shown) == terminal
    assert not terminal or shown.rstrip().endswith("\x1b[2K"), "the bar is wiped away"


def test_work_of_which_nothing_is_told_shows_nothing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with reporting_errors(console):
        pass
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("word", "uses_torch", "status"), [("here", False, 1), ("well", False, 0), ("well", True, 1), ("misused", False, 2)]
)
def test_deleted_current_folder_is_named_where_it_matters(
    word: str,
    uses_torch: bool,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    app, folder = typer.Typer(add_completion=False, pretty_exceptions_enable=False), tmp_path / "gone"

    @app.command()
    def work(how: Annotated[str, typer.Argument()]) -> None:
        if how == "here":
            os.getcwd()
        if how in ERRORS:
            raise ERRORS[how]

    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    monkeypatch.setattr(sys, "argv", [PROGRAM, word])
    assert run_app(app, PROGRAM, uses_torch=uses_torch) == status
    assert ("the current folder was deleted: change to one that exists" in capfd.readouterr().err) == (status == 1)


@pytest.mark.parametrize("columns", ["0", "1", "20"])
def test_help_is_whole_where_columns_is_useless(
    columns: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def work(name: Annotated[str, typer.Option(help="The name of the work.")] = "") -> None:
        pass

    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "argv", [PROGRAM, "--help"])
    assert run_app(app, PROGRAM) == 0
    assert "The name of the work." in capfd.readouterr().out


PRINTING = """
import sys, typer
from cliprl.engines.cli.cli_runner import run_app

app = typer.Typer(add_completion=False)

@app.command()
def work():
    print('"\u00fc\u624b\U0001f600"')

sys.exit(run_app(app, "cliprl-test"))
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_standard_output_of_any_encoding_takes_all_characters(encoding: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [sys.executable, "-c", PRINTING], env=environment, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding)) == "\u00fc\u624b\U0001f600"
