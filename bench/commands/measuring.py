"""The commands that measure, and what each is given."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cliprl.bench import peers
from cliprl.bench.commands import engines, live, precisions, scale, soak, stages, startup, stream, training
from cliprl.bench.commands.running import Bundle, Clip, Frames, Output, Rounds, Seconds, Steps, WarmUp, job, measured
from cliprl.bench.commands.suite import suite
from cliprl.bench.harness.clips import DEMO
from cliprl.bench.peers.measure import measure as measure_peers
from cliprl.engines import UsageError


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
    measured("stream", clip, wanted, stream.measure, output=output)


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
    measured("stages", clip, wanted, stages.measure, output=output)


def engines_(
    bundle: Bundle = "small",
    device: Annotated[str, typer.Option(help="Where to run: cpu or cuda.")] = "cpu",
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Pictures at a time; may be repeated.")] = None,
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    output: Output = None,
) -> None:
    """The networks alone: every backend of the device in every precision, as the accuracy gate lets them serve."""
    batches = tuple(batch or (1,))
    wanted = job("engines", bundle=bundle, rounds=rounds, seconds=seconds, warm_up=warm_up)
    options = ["--device", device, *(word for each in batches for word in ("--batch", f"{each}"))]
    measured("engines", None, wanted, partial(engines.measure, device=device, batches=batches), options, output=output)


def start_(clip: Clip = DEMO, bundle: Bundle = "small", rounds: Rounds = None, output: Output = None) -> None:
    """From launch to the first painted frame in a file: with compiled engines in the cache, and with an empty one."""
    wanted = job("start", bundle=bundle, rounds=rounds)
    measured("start", clip, wanted, startup.measure, ["--rounds", f"{wanted.rounds}"], output=output)


def precisions_(
    sources: Annotated[list[str], typer.Argument(help="Videos or pictures to score on.")],
    calibrate: Annotated[list[str], typer.Option(help="Other videos or pictures to calibrate on; may be repeated.")],
    count: Annotated[int, typer.Option(min=1, help="Frames of each source.")] = 24,
    bundle: Bundle = "small",
    output: Output = None,
) -> None:
    """The labels that bf16, f16, int8 and fp8 give away, and which layers cost most of them (needs nncf and onnxruntime)."""
    wanted = job("precisions", bundle=bundle)
    measure = partial(precisions.measure, calibration=calibrate, sources=sources, count=count)
    words = [*map(precisions.shown, sources)]
    words += [word for source in calibrate for word in ("--calibrate", precisions.shown(source))]
    measured("precisions", None, wanted, measure, [*words, "--count", f"{count}"], output=output)


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
    measured("live", clip, wanted, partial(live.measure, rates=rates), options, output=output)


def soak_(
    clip: Clip = DEMO,
    frames: Annotated[int, typer.Option(min=100, help="How long to run.")] = soak.FRAMES,
    target: Annotated[str, typer.Option("--target", help="A sink, as for cliprl-stream.")] = "null:",
    bundle: Bundle = "small",
    steps: Steps = None,
    output: Output = None,
) -> None:
    """One long run of a repeated clip: does latency, memory, the number of open files or threads grow?"""
    options = ["--frames", f"{frames}", "--target", target]
    measure = partial(soak.measure, output=target, frames=frames)
    measured("soak", clip, job("soak", bundle=bundle, steps=steps), measure, options, output=output)


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
    measured("scale", clip, wanted, partial(scale.measure, axes=axes), options, output=output)


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
    measured("peers", clip, wanted, partial(measure_peers, names=names), options, output=output)


def training_(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a TOML file.")] = "small",
    device: Annotated[str, typer.Option(help="Where to train: auto (a GPU where there is one), cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of torch; 0 means all cores.")] = 0,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Change a setting; may be repeated.")] = None,
    rounds: Rounds = None,
    seconds: Seconds = None,
    warm_up: WarmUp = None,
    output: Output = None,
) -> None:
    """How fast a recipe learns, how long it waits for data, and how busy that keeps a GPU (needs the extra `train`)."""
    wanted = job("training", rounds=rounds, seconds=seconds, warm_up=warm_up)
    settings = tuple(set_ or ())
    measure = partial(training.measure, name=recipe, settings=settings, device=device, threads=threads)
    measured("training", None, wanted, measure, output=output)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.command("stream")(stream_)
    app.command("stages")(stages_)
    app.command("engines")(engines_)
    app.command("start")(start_)
    app.command("precisions")(precisions_)
    app.command("live")(live_)
    app.command("soak")(soak_)
    app.command("scale")(scale_)
    app.command("peers")(peers_)
    app.command("training")(training_)
    app.command("suite")(suite)
