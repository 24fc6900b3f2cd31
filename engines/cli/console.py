"""Print on standard error, and show a moving bar while something takes long.

Apart from `cli_runner`, so that the start of a program does not import rich.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.console import Console

from cliprl.engines.backends.engine import LogFunction
from cliprl.engines.cli.cli_runner import printable


class _StandardError:
    """Standard error, where what it does not take is lost: a full disk or a closed terminal must not end the run."""

    @property
    def rich_proxied_file(self) -> _StandardError:
        """The stream that rich writes to while it shows a progress bar in place of standard error."""
        return self

    def write(self, text: str) -> int:
        """As a file's."""
        with suppress(OSError, ValueError):
            if (file := _standard_error()) is not None:
                file.write(text)
        return len(text)

    def flush(self) -> None:
        """As a file's."""
        with suppress(OSError, ValueError):
            if (file := _standard_error()) is not None:
                file.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(_standard_error(), name)


def _standard_error() -> TextIO | None:
    """Standard error, without what rich puts before it; None where the program was started without one."""
    file: TextIO | None = getattr(sys.stderr, "rich_proxied_file", sys.stderr)
    return file


def error_console(**options: Any) -> Console:
    """Make a console that prints on standard error and never fails."""
    return Console(file=cast(TextIO, _StandardError()), emoji=False, **options)  # a name may hold ':x:'


@contextmanager
def reporting_errors(console: Console) -> Iterator[LogFunction]:
    """Gives what prints a message; from the first one on a terminal shows a moving bar and the time, until the work is done.

    Compiling tells no share of its work that is done, so the bar has no end.
    """
    bars, lock = list[Any](), threading.Lock()  # networks are compiled on several threads

    def log(message: str) -> None:
        with lock:
            with suppress(OSError):  # a closed terminal must not end the run
                console.print(printable(message), style="dim", markup=False, highlight=False)
            if console.is_terminal and not bars:
                from rich.progress import BarColumn, Progress, TimeElapsedColumn

                bars.append(Progress(BarColumn(20), TimeElapsedColumn(), console=console, transient=True))
                bars[0].add_task("", total=None)
                bars[0].start()

    try:
        yield log
    finally:
        for bar in bars:
            bar.stop()
