"""`cliprl-bench work`: the CPU work of each stage beside that of an earlier checkout, in turns, and the labels of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cliprl.bench.commands.headline import checkout
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.timing import BenchJob, LogFunction
from cliprl.pipeline.core.statistics import STAGES

CASE, SUM, WARM_UP_FRAMES = "cliprl-stream", "a frame", 10
STAGES_TASK = "measure_stages"
METHOD = {
    "includes": "CPU milliseconds of a frame in each stage, all threads, over the clip's first frames, which lie in memory",
    "excludes": "opening and closing files, compiling the networks",
    "pairs": "both checkouts take turns, a pass each, in processes that stay ready; they begin in turns too",
}
StageTimes = Mapping[str, float]


@measurement(
    "work",
    help="CPU work of each stage beside that of an earlier checkout, and the share of labels that are the same.",
    defaults=BenchJob("", rounds=7, seconds=0, warm_up=0, frames=100),
    settings=("bundle", "rounds", "frames", "steps"),
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    baseline: Annotated[Path, typer.Option(help="The earlier checkout: git worktree add FOLDER COMMIT.")] = Path(),
) -> Result:
    """Measure both checkouts in turns. Raises UsageError where the baseline is no checkout."""
    checkout.check_checkout(baseline)
    labels = Series.of(CASE, "labels as the baseline", "%", [checkout.same_labels(baseline, job)])
    turns: dict[str, list[StageTimes]] = {CASE: [], checkout.NAME: []}
    notes = [f"baseline: commit {checkout.commit_of(baseline)}"]
    with (
        checkout.CheckoutProcess(None, job, STAGES_TASK) as ours,
        checkout.CheckoutProcess(baseline, job, STAGES_TASK) as theirs,
    ):
        pair = {CASE: ours, checkout.NAME: theirs}
        for process in pair.values():
            process.run(session.folder / "out.mp4", WARM_UP_FRAMES)
        for number in range(job.rounds):
            log(f"round {number + 1} of {job.rounds}")
            for name in list(pair)[:: 1 if number % 2 else -1]:
                turns[name].append(pair[name].run(session.folder / "out.mp4", job.frames))
            session.keep(session.result([*series_of(turns), labels], METHOD, notes), f"ended in round {number + 2}")
    return session.result([*series_of(turns), labels], METHOD, notes)


def series_of(turns: Mapping[str, Sequence[StageTimes]]) -> list[Series]:
    """CPU work by stage and in all, of both checkouts, and ours over the baseline's."""
    series, sums = [], dict[str, list[float]]()
    for case, found in turns.items():
        series += [Series.of(case, stage, "ms", [[turn[stage]] for turn in found]) for stage in STAGES]
        sums[case] = [sum(turn[stage] for stage in STAGES) for turn in found]
        series.append(Series.of(case, SUM, "ms", [[total] for total in sums[case]]))
    ratios = [[ours / theirs] for ours, theirs in zip(sums[CASE], sums[checkout.NAME], strict=True)]
    return [*series, Series.of(CASE, "CPU work over the baseline", "ratio", ratios)]
