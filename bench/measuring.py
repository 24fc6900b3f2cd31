"""The commands that measure: what each is given, and how long it measures where nothing is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cliprl.bench import engines, live, peers, scale, soak, stages, stream
from cliprl.bench.clips import DEMO
from cliprl.bench.job import Job, Say
from cliprl.bench.machine import slug
from cliprl.bench.peers.measure import measure as measure_peers
from cliprl.bench.result import Result
from cliprl.bench.session import Session
from cliprl.bench.table import markdown
from cliprl.engines import UsageError

SOAK_FRAMES = 20_000
# What each command measures for: enough frames for the percentiles that it quotes.
DEFAULTS: Mapping[str, Job] = {
    "stream": Job("", rounds=5, seconds=10, warm_up=2),
    "peers": Job("", rounds=3, seconds=5, warm_up=2),
    "live": Job("", rounds=1, seconds=60, warm_up=3),
    "stages": Job("", rounds=3, seconds=5, warm_up=2),
    "engines": Job("", rounds=3, seconds=5, warm_up=1),
    "scale": Job("", rounds=2, seconds=4, warm_up=1),
    "soak": Job("", rounds=1, seconds=0, warm_up=0),
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


def stream_(
    clip: Clip = DEMO,
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    steps: Steps = None,
    frames: Frames = None,
    output: Output = None,
) -> None:
    """File to file as fast as it goes, beside a plain OpenCV loop on the same engine, and the share of the machine's bound."""
    wanted = job("stream", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up, steps=steps, frames=frames)
    show(measured("stream", clip, wanted, stream.measure), output)


def stages_(
    clip: Clip = DEMO,
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    steps: Steps = None,
    frames: Frames = None,
    output: Output = None,
) -> None:
    """Each stage alone and in place, by the clock and in CPU work."""
    wanted = job("stages", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up, steps=steps, frames=frames)
    show(measured("stages", clip, wanted, stages.measure), output)


def engines_(
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    output: Output = None,
) -> None:
    """The networks alone, in every precision."""
    wanted = job("engines", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up)
    show(measured("engines", None, wanted, engines.measure), output)


def live_(
    clip: Clip = DEMO,
    rate: Annotated[list[int] | None, typer.Option(min=1, help="Frames a second; may be repeated.")] = None,
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    steps: Steps = None,
    output: Output = None,
) -> None:
    """Paced like a camera, at 25, 30, 60 and 120 FPS: frames lost, latency under load, deadlines missed."""
    rates = tuple(rate or live.RATES)
    wanted = job("live", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up, steps=steps)
    options = [word for each in rates for word in ("--rate", f"{each}")]
    show(measured("live", clip, wanted, partial(live.measure, rates=rates), options), output)


def soak_(
    clip: Clip = DEMO,
    frames: Annotated[int, typer.Option(min=100, help="How long to run.")] = SOAK_FRAMES,
    target: Annotated[str, typer.Option("--target", help="A sink, as for cliprl-stream.")] = "null:",
    bundle: Bundle = "small",
    steps: Steps = None,
    output: Output = None,
) -> None:
    """One long run of a repeated clip: does latency, memory, the number of open files or threads grow?"""
    options = ["--frames", f"{frames}", "--target", target]
    measure = partial(soak.measure, output=target, frames=frames)
    show(measured("soak", clip, job("soak", bundle=bundle, steps=steps), measure, options), output)


def scale_(
    clip: Clip = DEMO,
    axis: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(scale.AXES)}; may be repeated.")] = None,
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    frames: Frames = None,
    output: Output = None,
) -> None:
    """The cost of a frame against resolution, streams at once, refinement steps and classes."""
    axes = tuple(axis or scale.AXES)
    if unknown := set(axes) - set(scale.AXES):
        raise UsageError(f"unknown axis '{min(unknown)}': one of {', '.join(scale.AXES)}")
    wanted = job("scale", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up, frames=frames)
    options = [word for name in axes for word in ("--axis", name)]
    show(measured("scale", clip, wanted, partial(scale.measure, axes=axes), options), output)


def peers_(
    clip: Clip = DEMO,
    peer: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated. All by default.")] = None,
    bundle: Bundle = "small",
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    steps: Steps = None,
    frames: Frames = None,
    output: Output = None,
) -> None:
    """What else people would use, on the same clip in the same rounds; what is not installed is skipped, with the reason."""
    names = tuple(peer or peers.CONTENDERS)
    for name in names:
        peers.contender(name)
    wanted = job("peers", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up, steps=steps, frames=frames)
    options = [word for name in peer or () for word in ("--peer", name)]
    show(measured("peers", clip, wanted, partial(measure_peers, names=names), options), output)


SUITE: Mapping[str, Measure] = {
    "stream": stream.measure,
    "peers": partial(measure_peers, names=tuple(peers.CONTENDERS)),
    "live": live.measure,
    "stages": stages.measure,
    "engines": engines.measure,
    "scale": scale.measure,
    "soak": partial(soak.measure, output="null:", frames=SOAK_FRAMES),
}
_SUITE_OPTIONS = {"soak": ["--frames", f"{SOAK_FRAMES}"]}


def suite(
    clip: Clip = DEMO,
    into: Annotated[Path, typer.Option(help="Folder for the result files.")] = Path("bench/results"),
    only: Annotated[list[str] | None, typer.Option(help="Only this command; may be repeated.")] = None,
    bundle: Bundle = "small",
) -> None:
    """Every measurement with its defaults, one result file each: INTO/MACHINE-COMMAND.json. Takes about half an hour."""
    for name in only or ():
        if name not in SUITE:
            raise UsageError(f"no measurement '{name}': one of {', '.join(SUITE)}")
    for kind in only or SUITE:
        source = None if kind == "engines" else clip
        result = measured(kind, source, job(kind, bundle=bundle), SUITE[kind], _SUITE_OPTIONS.get(kind, ()))
        show(result, into / f"{slug(result.machine)}-{kind}.json")


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("stream")(stream_)
    app.command("stages")(stages_)
    app.command("engines")(engines_)
    app.command("live")(live_)
    app.command("soak")(soak_)
    app.command("scale")(scale_)
    app.command("peers")(peers_)
    app.command("suite")(suite)
