"""The commands that measure what the live path promises."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from cliprl.bench.commands import faults, guard, watched_run
from cliprl.bench.commands import fuzz as fuzzing
from cliprl.bench.commands.running import Bundle, Clip, Output, Rounds, Seconds, Steps, WarmUp, job, measured
from cliprl.bench.harness.clips import DEMO
from cliprl.engines.cli.cli_runner import error_console


def faults_(
    clip: Clip = DEMO,
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    steps: Steps = None,
    output: Output = None,
) -> None:
    """What the picture does while segmentation raises, hangs, gives nonsense or is killed, the camera stalls, or the machine is
    too slow."""
    wanted = job("faults", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up, steps=steps)
    measured("faults", clip, wanted, faults.measure, output=output)


def watch_(
    clip: Clip = DEMO,
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    steps: Steps = None,
    output: Output = None,
) -> None:
    """The whole program for ten minutes, watched on its page and recording: age of the pictures seen, frames missing."""
    wanted = job("watch", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up, steps=steps)
    measured("watch", clip, wanted, watched_run.measure, output=output)


def guard_(
    inside: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE]…", help="Videos, or FOLDER/*.png, of the inside of bodies.")
    ] = None,
    outside: Annotated[list[str] | None, typer.Option(help="Likewise of anything else; may be repeated.")] = None,
    output: Output = None,
) -> None:
    """How often the out-of-body guard is wrong on videos and pictures of yours."""
    there, elsewhere = inside or [], outside or []
    measured("guard", None, job("guard"), partial(guard.measure, inside=there, outside=elsewhere), output=output)


def fuzz_(
    count: Annotated[int, typer.Option(min=1, help="How many mutated files to try.")] = 2000,
    seed: Annotated[int, typer.Option(help="The same seed and count give the same files.")] = 1,
    keep: Annotated[Path | None, typer.Option(help="Copy the files that ended badly into this folder.")] = None,
) -> None:
    """Mutated video files through decoder and encoder: no crash, no hang, no other file touched, every refusal in words."""
    verdicts = list(track(fuzzing.fuzz(count, seed, keep), "fuzz", count, console=error_console()))
    typer.echo(fuzzing.summary(verdicts))
    if not all(verdict.good for verdict in verdicts):
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("faults")(faults_)
    app.command("watch")(watch_)
    app.command("guard")(guard_)
    app.command("fuzz")(fuzz_)
