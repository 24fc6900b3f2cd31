"""`cliprl-bench archive-nodes`: the time of an archive on one Ray node that has one core, and on two such nodes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench.fixtures.archive_inputs import make_clips
from cliprl.bench.fixtures.archive_kills import ARCHIVE
from cliprl.bench.fixtures.ray_nodes import ray_nodes
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.engines import CliprlError

METHOD = {
    "includes": "cliprl-archive --ray on a folder of short clips, start of the driver and of the workers included; nodes are "
    "started before, each pinned to one core with one CPU",
    "speed-up": "time on one node over time on two nodes, of the same round",
}


@measurement(
    "archive-nodes",
    help="The time of an archive on two Ray nodes of one core each, beside one such node.",
    defaults=BenchJob("", rounds=3, seconds=0, warm_up=0),
    settings=("bundle", "rounds"),
    clip=False,
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    clips: Annotated[int, typer.Option(min=8, help="Number of files.")] = 24,
    length: Annotated[int, typer.Option("--frames", min=1, help="Frames of each clip.")] = 250,
) -> Result:
    """Run each round on one node, then on two. The first round's compiling is done before."""
    folder = session.folder / "clips"
    make_clips(folder, clips, length)
    _run(folder, session.folder / "warm-up", ["--bundle", job.bundle])
    times: dict[int, list[float]] = {1: [], 2: []}
    for number in range(job.rounds):
        for nodes in times:
            log(f"round {number + 1} of {job.rounds}, {nodes} nodes")
            with ray_nodes(list(range(nodes))) as address:
                start = time.monotonic()
                _run(folder, session.folder / f"{number}-{nodes}", ["--bundle", job.bundle, "--ray", address])
                times[nodes].append(time.monotonic() - start)
    gains = [one / two for one, two in zip(times[1], times[2], strict=True)]
    return session.result(
        [
            *(Series.of(f"{nodes} nodes", "time", "s", [[each] for each in taken]) for nodes, taken in times.items()),
            Series.of("2 nodes", "speed-up over one", "times", [[gain] for gain in gains]),
        ],
        METHOD,
    )


def _run(folder: Path, out: Path, words: Sequence[str]) -> None:
    done = subprocess.run(
        [*ARCHIVE, str(folder), "-o", str(out), "-q", *words], capture_output=True, text=True, check=False
    )
    if done.returncode not in (0, 3):
        raise CliprlError(f"cliprl-archive failed: {done.stderr.strip()}")
