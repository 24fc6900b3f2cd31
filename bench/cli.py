"""`cliprl-bench`: how fast it is, so that others can repeat it."""

from __future__ import annotations

import sys
from typing import Any

import typer

from cliprl.bench import measuring, reading
from cliprl.engines import CliprlError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Measure the pipeline, and read the results.",
)
measuring.add_to(app)
reading.add_to(app)
# The class that all of typer's own complaints about the command line share, wherever this version of typer keeps it.
_CommandLineError: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
INTERRUPTED = 130


def main() -> None:
    """The console script. Exit status: 0 done, 1 a failed run or a breach, 2 misuse, 130 interrupted. Errors are one line."""
    sys.exit(_status_of_run())


def _status_of_run() -> int:
    try:
        status: int | None = app(standalone_mode=False)
        return status or 0
    except CliprlError as error:
        return _complain(str(error), error.exit_status)
    except _CommandLineError as error:
        return _complain(f"{error.format_message().rstrip('.')}. See cliprl-bench --help", 2)
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", INTERRUPTED)


def _complain(message: str, status: int) -> int:
    print(f"cliprl-bench: {' '.join(message.split())}", file=sys.stderr)
    return status
