"""The commands that measure what the live path promises."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cliprl.bench import faults, guard, watch
from cliprl.bench.clips import DEMO
from cliprl.bench.running import Bundle, Clip, Output, Rounds, Seconds, Steps, WarmUp, job, measured


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
    measured("watch", clip, wanted, watch.measure, output=output)


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


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("faults")(faults_)
    app.command("watch")(watch_)
    app.command("guard")(guard_)
