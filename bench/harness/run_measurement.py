"""Run one measurement for the command line: progress on standard error, tables on standard output, a result file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from cliprl.bench.harness.result import UNFINISHED, Result, check_place
from cliprl.bench.harness.result_session import ResultSession, unfinished_path
from cliprl.bench.harness.table import format_result
from cliprl.bench.harness.timing import BenchJob
from cliprl.engines.cli.console import error_console
from cliprl.engines.cli.signals import on_ending_signals


class Ended(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ending_well() -> Iterator[None]:
    """Turn an ending signal into an exception, so that the measured processes end and the samples so far are kept."""

    def end(number: int) -> None:
        raise Ended(number)

    with on_ending_signals(end):
        yield


def run_measurement(
    kind: str,
    clip: str | None,
    job: BenchJob,
    measure: Callable[..., Result],
    own: Mapping[str, Any],
    settings: Sequence[str],
    words: Sequence[str] = (),
    output: Path | None = None,
) -> Result:
    """Call `measure(session, job, say, **own)`, print the tables, and write the result file if `output` names one.

    `settings` are the fields of the job that the recorded command names, `words` its further words. If the measurement
    ends early, the samples so far are printed and kept in a file beside `output` (see `ResultSession`).
    """
    console = error_console()
    if output is not None:
        check_place(output)
    with ResultSession(kind, clip, job, words, output, settings) as session, _ending_well():
        try:
            with console.status(kind) as status:

                def log(text: str) -> None:
                    status.update(f"{kind}: {text}")
                    if not console.is_terminal:
                        console.print(f"{kind}: {text}", highlight=False, soft_wrap=True)

                result = measure(session, replace(job, clip=str(session.clip)), log, **own)
        except BaseException as error:
            if session.kept is not None:
                _show_kept(session.kept, output, console)
            if isinstance(error, Ended):
                raise typer.Exit(128 + error.number) from None
            raise
    if output is not None:
        result.write(output)
        unfinished_path(output).unlink(missing_ok=True)
    typer.echo(format_result(result))
    return result


def _show_kept(kept: Result, output: Path | None, console: Console) -> None:
    typer.echo(format_result(kept))
    where = f"; kept in {unfinished_path(output)}" if output is not None else "; -o FILE would have kept it"
    console.print(f"{kept.method[UNFINISHED]}{where}", highlight=False, soft_wrap=True)
