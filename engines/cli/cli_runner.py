"""Run a command-line program: its exit status, and one line on standard error for every failure."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import typer

from cliprl.engines.cli.command_line import checked_command, describe_misuse
from cliprl.engines.cli.loading import collect_garbage, current_folder_hidden, end_with
from cliprl.engines.cli.missing_package import missing_package_message
from cliprl.engines.cli.signals import ENDING, ending_at_once
from cliprl.engines.errors import CliprlError

MISUSE, INTERRUPTED = 2, 130
_MORE_MEMORY = "end other programs, raise the limit of this one (ulimit -v), or give a smaller video"
# How a library in C++, one that is being loaded, and the system say that there is no memory.
_NO_MEMORY = ("bad_alloc", "failed to map segment", "Cannot allocate memory", "cannot allocate memory")
# What to do about an error of the system that no part of the program has explained.
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or give another place"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "give a place that this user may read and write"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "a file and a folder have one name: give another place"
    ),
    errno.ENOENT: "give a place that exists",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EIO: "check the disk",
    errno.EAGAIN: "end other programs, or raise the limit of processes (ulimit -u)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}
_LEAST_COLUMNS = 60
_NO_FOLDER = "the current folder was deleted: change to one that exists (cd)"


def run_app(app: typer.Typer, program: str, *, uses_torch: bool = False, collects: bool = True) -> int:
    """Run a program on the command line's words, and return its exit status.

    0 done, 1 failed or refused, 2 misuse, 130 interrupted; SIGTERM and SIGHUP raise SystemExit. An error is one line on
    standard error; of an unexpected one the traceback is written to a file, which the line names. uses_torch: in a deleted
    folder torch would end the process. collects: from here on garbage is collected; without it the app sees to that.
    """
    if collects:
        collect_garbage()
    _open_standard_handles()
    _print_all_characters()
    _widen_narrow_output()
    if uses_torch and not _has_current_folder():
        return _complain(program, _NO_FOLDER, 1)
    with _own_errors_of_output(), current_folder_hidden():
        status = _run(app, program)
        if sys.stdout is not None and status == 0:
            try:
                sys.stdout.flush()
            except _OutputError as error:
                status = _output_lost(program, error)
        _drop_lost_errors()
    end_with(status, ENDING)
    return status


def _command_line_error() -> Any:
    """The class that all of typer's own complaints about the command line share, wherever this version of typer keeps it."""
    return next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def _drop_lost_errors() -> None:
    """Let what standard error did not take go nowhere, so that the interpreter's end neither waits for it nor fails."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _run(app: typer.Typer, program: str) -> int:
    try:
        command = checked_command(app)
        with ending_at_once():
            status: int = command(standalone_mode=False) or 0
    except CliprlError as error:
        notes = [note for note in getattr(error, "__notes__", ()) if "\n" not in note]  # others are tracebacks
        return _complain(program, "; ".join([str(error), *notes]), error.exit_status)
    except _command_line_error() as error:
        return _complain(program, describe_misuse(error, program), MISUSE) if str(error) else MISUSE
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except SystemExit as error:
        end_with(error.code if isinstance(error.code, int) else int(error.code is not None), ENDING)
        raise
    except _OutputError as error:
        return _output_lost(program, error)
    except MemoryError as error:
        detail = f" ({error})" if str(error) else ""
        return _complain(program, f"too little memory{detail}: {_MORE_MEMORY}", 1)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (message := missing_package_message(error)):
            return _complain(program, message, MISUSE)
        number = getattr(error, "errno", None)
        if number == errno.ENOMEM or any(words in str(error) for words in _NO_MEMORY):
            return _complain(program, f"too little memory: {_MORE_MEMORY}", 1)
        if isinstance(error, OSError) and number in _REMEDIES:
            if number == errno.ENOENT and not error.filename and not _has_current_folder():
                return _complain(program, _NO_FOLDER, 1)
            # Of a copy that fills the disk the second name, that of the new file.
            name = (error.filename2 if number == errno.ENOSPC else None) or error.filename
            place = f"'{str(name)[:200]}'" if name else "a file of this run"
            status = MISUSE if number == errno.ENAMETOOLONG else 1
            if "temporary directory" in str(error.strerror):
                return _complain(program, f"{error.strerror}: set TMPDIR to a folder that can be written", 1)
            return _complain(program, f"{place} can't be used ({error.strerror}): {_REMEDIES[number]}", status)
        return _complain(program, f"unexpected {type(error).__name__}: {error}. Report it{_kept(program)}", 1)
    # Newer versions of typer make this status of Ctrl-C themselves, and say nothing.
    return _complain(program, "interrupted", status) if status == INTERRUPTED else status


def _has_current_folder() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _open_standard_handles() -> None:
    """Put /dev/null where standard input, output or error was closed, so that no file of the run gets its number."""
    for handle in (0, 1, 2):
        try:
            os.fstat(handle)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _print_all_characters() -> None:
    """Let standard output escape the characters that its encoding lacks, as JSON does: `\\u00fc`."""

    def escape(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        data = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
        return "".join(f"\\u{data[i] << 8 | data[i + 1]:04x}" for i in range(0, len(data), 2)), error.end

    codecs.register_error("cliprl.escape", escape)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() not in ("utf-8", "utf8"):
        sys.stdout.reconfigure(errors="cliprl.escape")


def _widen_narrow_output() -> None:
    """Let tables and help be at least `_LEAST_COLUMNS` wide: a narrower COLUMNS, such as 0, would cut off all that they hold."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns[:9]) < _LEAST_COLUMNS:
        os.environ["COLUMNS"] = str(_LEAST_COLUMNS)


class _OutputError(OSError):
    """Standard output that takes nothing more: a full disk, a reader that has gone."""


class _Output:
    """A text file whose errors are raised as `_OutputError`, to distinguish them from all others."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """As a file's."""
        try:
            return self._file.write(text)
        except OSError as error:
            raise _OutputError(error.errno, error.strerror) from error

    def flush(self) -> None:
        """As a file's."""
        try:
            self._file.flush()
        except OSError as error:
            raise _OutputError(error.errno, error.strerror) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def _own_errors_of_output() -> Iterator[None]:
    """Let standard output raise `_OutputError`."""
    before = sys.stdout
    if before is not None:
        sys.stdout = cast(TextIO, _Output(before))
    try:
        yield
    finally:
        sys.stdout = before


def _output_lost(program: str, error: _OutputError) -> int:
    """Tell that standard output failed; what it still holds goes nowhere, so that the interpreter's end is quiet."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _complain(program, f"can't print ({error.strerror}): give standard output a place that takes it", 1)


def printable(text: str) -> str:
    """Return a line for a terminal: control characters in names, which could command it, are escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """Return the bytes of a character of a file name, or the number of one that no name can hold, such as JSON's "\\ud800"."""
    with suppress(UnicodeEncodeError):
        character = os.fsencode(character).decode("latin-1")
    return character.encode("unicode_escape").decode()


def _complain(program: str, message: str, status: int) -> int:
    with suppress(OSError):  # the exit status still tells
        print(f"{program}: {printable(' '.join(message.split()))}", file=sys.stderr, flush=True)
    return status


def _kept(program: str) -> str:
    """Write the traceback of the exception at hand to a file; in words, which one."""
    with (
        suppress(OSError),
        tempfile.NamedTemporaryFile("w", prefix=f"{program}-", suffix=".txt", delete=False, encoding="utf-8") as file,
    ):
        traceback.print_exc(file=file)
        return f" with {file.name}"
    return ""
