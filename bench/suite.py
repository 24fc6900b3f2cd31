"""`cliprl-bench suite`: every measurement with its defaults, for the figures that are committed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench import engines, live, peers, scale, soak, stages, stream
from cliprl.bench.clips import DEMO
from cliprl.bench.machine import slug
from cliprl.bench.peers.measure import measure as measure_peers
from cliprl.bench.running import Bundle, Clip, Measure, job, measured, show
from cliprl.engines import UsageError

SUITE: Mapping[str, Measure] = {
    "stream": stream.measure,
    "peers": partial(measure_peers, names=tuple(peers.CONTENDERS)),
    "live": live.measure,
    "stages": stages.measure,
    "engines": engines.measure,
    "scale": scale.measure,
    "soak": partial(soak.measure, output="null:", frames=soak.FRAMES),
}
_SUITE_OPTIONS = {"engines": ["--device", "cpu", "--batch", "1"], "soak": ["--frames", f"{soak.FRAMES}"]}


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
