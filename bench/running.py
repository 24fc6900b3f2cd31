"""What the commands that measure share: their options, how long each measures where nothing is said, and how it reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cliprl.bench.job import Job, Say
from cliprl.bench.result import Result
from cliprl.bench.session import Session
from cliprl.bench.table import markdown

# What each command measures for: enough frames for the percentiles that it quotes.
DEFAULTS: Mapping[str, Job] = {
    "stream": Job("", rounds=3, seconds=10, warm_up=2),
    "peers": Job("", rounds=3, seconds=5, warm_up=2),
    "live": Job("", rounds=1, seconds=60, warm_up=3),
    "stages": Job("", rounds=3, seconds=5, warm_up=2),
    "engines": Job("", rounds=3, seconds=5, warm_up=1),
    "scale": Job("", rounds=2, seconds=4, warm_up=1),
    "start": Job("", rounds=7, seconds=0, warm_up=0),
    "precisions": Job("", rounds=1, seconds=0, warm_up=0),
    "soak": Job("", rounds=1, seconds=0, warm_up=0),
    "faults": Job("", rounds=3, seconds=10, warm_up=2),
    "watch": Job("", rounds=1, seconds=600, warm_up=15),
}

Clip = Annotated[str, typer.Argument(help="A video file, or demo:?size=1280x720&seconds=10, rendered first.")]
Bundle = Annotated[str, typer.Option(metavar="NAME|FOLDER", help="The engine bundle to run.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Rounds; in each, everything runs once, in a fresh process.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="How long to measure in a round.")]
WarmUp = Annotated[float | None, typer.Option(min=0.0, help="Seconds of running before anything is counted.")]
Steps = Annotated[int | None, typer.Option(min=0, help="Most refinement steps a frame gets; the bundle's by default.")]
Frames = Annotated[int | None, typer.Option(min=1, help="Read only so many of the clip's frames.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Write the result file (JSON) here.")]
Measure = Callable[[Session, Job, Say], Result]


def job(kind: str, **given: Any) -> Job:
    """The command's defaults, but for what was given."""
    return replace(DEFAULTS[kind], **{key: value for key, value in given.items() if value is not None})


def measured(kind: str, clip: str | None, job: Job, measure: Measure, options: Sequence[str] = ()) -> Result:
    """Measure, telling on standard error how far it is."""
    console = Console(stderr=True)
    with Session(kind, clip, job, options) as session, console.status(kind) as status:

        def say(text: str) -> None:
            status.update(f"{kind}: {text}")
            if not console.is_terminal:
                console.print(f"{kind}: {text}", highlight=False, soft_wrap=True)

        return measure(session, replace(job, clip=str(session.clip)), say)


def show(result: Result, output: Path | None) -> None:
    """Write the result file where one is wanted, print the tables."""
    if output is not None:
        result.write(output)
    typer.echo(markdown(result))
