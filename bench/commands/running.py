"""What the commands that measure share: their options, how long each measures where nothing is said, and how it reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cliprl.bench.harness.result import UNFINISHED, Result, check_place
from cliprl.bench.harness.result_session import ResultSession, kept_at
from cliprl.bench.harness.timing import BenchJob, Say
from cliprl.bench.report.table import markdown
from cliprl.engines.cli.cli_runner import error_console
from cliprl.engines.cli.signals import on_ending_signals

# What each command measures for: enough frames for the percentiles that it quotes.
DEFAULTS: Mapping[str, BenchJob] = {
    "stream": BenchJob("", rounds=3, seconds=10, warm_up=2),
    "peers": BenchJob("", rounds=3, seconds=5, warm_up=2),
    "live": BenchJob("", rounds=1, seconds=60, warm_up=3),
    "stages": BenchJob("", rounds=3, seconds=5, warm_up=2),
    "engines": BenchJob("", rounds=3, seconds=5, warm_up=1),
    "scale": BenchJob("", rounds=2, seconds=4, warm_up=1),
    "start": BenchJob("", rounds=7, seconds=0, warm_up=0),
    "precisions": BenchJob("", rounds=1, seconds=0, warm_up=0),
    "training": BenchJob("", rounds=3, seconds=30, warm_up=5),
    "soak": BenchJob("", rounds=1, seconds=0, warm_up=0),
    "faults": BenchJob("", rounds=3, seconds=10, warm_up=2),
    "guard": BenchJob("", rounds=1, seconds=0, warm_up=0),
    "watch": BenchJob("", rounds=1, seconds=600, warm_up=15),
}

Clip = Annotated[str, typer.Argument(help="A video file, or demo:?size=1280x720&seconds=10, rendered first.")]
Bundle = Annotated[str, typer.Option(metavar="NAME|FOLDER", help="The engine bundle to run.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Rounds; in each, everything runs once, in a fresh process.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="How long to measure in a round.")]
WarmUp = Annotated[float | None, typer.Option(min=0.0, help="Seconds of running before anything is counted.")]
Steps = Annotated[int | None, typer.Option(min=0, help="Most refinement steps a frame gets; the bundle's by default.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Read only so many of the clip's frames.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Write the result file (JSON) here.")]
Measure = Callable[[ResultSession, BenchJob, Say], Result]


def job(kind: str, **given: Any) -> BenchJob:
    """The command's defaults, but for what was given."""
    return replace(DEFAULTS[kind], **{key: value for key, value in given.items() if value is not None})


class Ended(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP, whose `number` it bears."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ending_well() -> Iterator[None]:
    """Let an ending signal end a measurement by an exception, so that its processes end too and what it has found is kept."""

    def end(number: int) -> None:
        raise Ended(number)

    with on_ending_signals(end):
        yield


def measured(
    kind: str,
    clip: str | None,
    job: BenchJob,
    measure: Measure,
    options: Sequence[str] = (),
    output: Path | None = None,
) -> Result:
    """Measure, telling on standard error how far it is; write the result file where one is wanted, print the tables.

    What is measured when it ends early is printed, and kept in a file beside: see `ResultSession`.
    """
    console = error_console()
    if output is not None:
        check_place(output)
    with ResultSession(kind, clip, job, options, output) as session, _ending_well():
        try:
            with console.status(kind) as status:

                def say(text: str) -> None:
                    status.update(f"{kind}: {text}")
                    if not console.is_terminal:
                        console.print(f"{kind}: {text}", highlight=False, soft_wrap=True)

                result = measure(session, replace(job, clip=str(session.clip)), say)
        except BaseException as error:
            if session.kept is not None:
                _show_kept(session.kept, output, console)
            if isinstance(error, Ended):
                raise typer.Exit(128 + error.number) from None
            raise
    if output is not None:
        result.write(output)
        kept_at(output).unlink(missing_ok=True)
    typer.echo(markdown(result))
    return result


def _show_kept(kept: Result, output: Path | None, console: Console) -> None:
    typer.echo(markdown(kept))
    where = f"; kept in {kept_at(output)}" if output is not None else "; -o FILE would have kept it"
    console.print(f"{kept.method[UNFINISHED]}{where}", highlight=False, soft_wrap=True)
