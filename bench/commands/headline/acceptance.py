"""`cliprl-bench acceptance`: the headline figures in whole runs, compared with each other and held to their limits."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench.commands.headline import checkout
from cliprl.bench.commands.results.check import check, read_budget
from cliprl.bench.commands.results.compare import headline_agreement
from cliprl.bench.harness.clips import DEMO
from cliprl.bench.harness.registry import BundleOption, Clip, app, measurements
from cliprl.bench.harness.result import Result
from cliprl.bench.harness.run_measurement import run_measurement

GOALS = Path(__file__).parents[2] / "headline.toml"


@app.command("acceptance")
def acceptance(
    clip: Clip = DEMO,
    into: Annotated[Path, typer.Option(help="Folder for the result files headline-1.json, headline-2.json ...")] = Path(
        "headline"
    ),
    runs: Annotated[int, typer.Option(min=1, help="Whole runs, one after the other.")] = 2,
    minutes: Annotated[
        float, typer.Option(min=0.1, help="Time for all runs; disturbed rounds are repeated in it.")
    ] = 12.0,
    rounds: Annotated[int, typer.Option(min=1, help="Quiet rounds wanted of each pair.")] = 3,
    baseline: Annotated[
        Path | None, typer.Option(help="An earlier checkout to compare CPU work and labels with.")
    ] = None,
    budget: Annotated[Path, typer.Option(help="Limits, in TOML; default: headline.toml.", show_default=False)] = GOALS,
    bundle: BundleOption = "small",
) -> None:
    """Run `headline` twice in bounded time, hold each run to the limits, and compare the runs.

    Exit status 1 if a limit is not kept, or if the runs differ by more than 10 % and no round was disturbed.
    """
    limits = [limit for limit in read_budget(budget) if limit.kind == "headline"]
    known = measurements()["headline"]
    job = replace(known.defaults, bundle=bundle, rounds=rounds)
    if baseline is not None:
        checkout.check_checkout(baseline)
    end, results = time.monotonic() + 60 * minutes, list[Result]()
    for number in range(1, runs + 1):
        share = max((end - time.monotonic()) / 60 / (runs - number + 1), 0.1)
        words = ["--minutes", f"{minutes / runs:g}"]
        words += [] if baseline is None else ["--baseline", checkout.commit_of(baseline)]
        own = {"minutes": share, "baseline": baseline}
        path = into / f"headline-{number}.json"
        results.append(run_measurement("headline", clip, job, known.measure, own, known.settings, words, path))
    kept = True
    for number, result in enumerate(results, 1):
        for finding in check([result], [limit for limit in limits if result.find(limit.case, limit.name)]):
            typer.echo(f"run {number}: {finding}")
            kept &= finding.kept
        for limit in limits:
            if result.find(limit.case, limit.name) is None:
                typer.echo(f"run {number}: not measured: {limit.title}")
    for other in results[1:]:
        agrees, text = headline_agreement(results[0], other, limits)
        typer.echo(text)
        kept &= agrees
    if not kept:
        raise typer.Exit(1)
