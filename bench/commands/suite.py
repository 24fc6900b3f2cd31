"""`cliprl-bench suite`: every measurement whose figures are committed, and the README's figures made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cliprl.bench import peers
from cliprl.bench.commands import engines, faults, live, scale, soak, stages, stream, watched_run
from cliprl.bench.commands.running import Bundle, Clip, Measure, job, measured
from cliprl.bench.harness.clips import DEMO
from cliprl.bench.harness.environment import describe, slug
from cliprl.bench.peers.measure import measure as measure_peers
from cliprl.bench.report import readme
from cliprl.engines import UsageError


@dataclass(frozen=True, slots=True)
class Part:
    """One measurement of the suite: the command's kind, what measures, the words of its own options, and how it is timed."""

    kind: str
    measure: Measure
    options: tuple[str, ...] = ()
    timing: Mapping[str, Any] = field(default_factory=dict)


def _live(*rates: int, **timing: float) -> Part:
    options = [word for rate in rates for word in ("--rate", f"{rate}")]
    return Part("live", partial(live.measure, rates=rates), tuple(options), timing)


PARTS: Mapping[str, Part] = {
    "stream": Part("stream", stream.measure),
    "peers": Part("peers", partial(measure_peers, names=tuple(peers.CONTENDERS))),
    "live": _live(30, 60, 120, seconds=30),
    "live-25": _live(25, seconds=600),
    "faults": Part("faults", faults.measure),
    "watch": Part("watch", watched_run.measure),
    "stages": Part("stages", stages.measure),
    "engines": Part("engines", engines.measure, ("--device", "cpu", "--batch", "1")),
    "scale": Part("scale", scale.measure),
    "soak": Part("soak", partial(soak.measure, output="null:", frames=soak.FRAMES), ("--frames", f"{soak.FRAMES}")),
}


def suite(
    clip: Clip = DEMO,
    into: Annotated[Path, typer.Option(help="Folder for the result files.")] = readme.RESULTS,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(PARTS)}; may be repeated.")] = None,
    bundle: Bundle = "small",
) -> None:
    """Every measurement with its defaults, one result file each: INTO/MACHINE-NAME.json. Takes an hour.

    Where INTO is the checkout's own folder, the README's figures are written anew.
    """
    for name in only or ():
        if name not in PARTS:
            raise UsageError(f"no measurement '{name}': one of {', '.join(PARTS)}")
    for name in only or PARTS:
        part = PARTS[name]
        source = None if part.kind == "engines" else clip
        timed = job(part.kind, bundle=bundle, **part.timing)
        measured(part.kind, source, timed, part.measure, part.options, into / f"{slug(describe())}-{name}.json")
    if into == readme.RESULTS and readme.README.is_file():
        readme.update()
