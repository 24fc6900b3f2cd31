"""`cliprl-bench peers`: all installed peers on one clip, in one interleaved run."""

from __future__ import annotations

from typing import Annotated

import typer

from cliprl.bench.commands.stream import lead, rate_series
from cliprl.bench.harness.registry import measurement
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import in_fresh_process
from cliprl.bench.harness.timing import Answers, BenchJob, LogFunction
from cliprl.bench.peers import all_peers, cliprl_contender, find_peer, timed, trial
from cliprl.engines import CliprlError

METHOD = {
    "includes": "opening the clip, all work of the peer (see its note), closing its output",
    "excludes": "starting Python, importing, loading or exporting networks, warm-up runs",
    "pace": "as fast as possible; a slow peer gets as many of the clip's first frames as it does in three times the seconds",
}


def _known_peers(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        find_peer(name)
    return names


@measurement(
    "peers",
    help="The alternatives on the same clip in the same rounds; one that is not installed is skipped, with the reason.",
    defaults=BenchJob("", rounds=3, seconds=5, warm_up=2),
    suite={"peers": {}},
)
def measure(
    session: ResultSession,
    job: BenchJob,
    log: LogFunction,
    names: Annotated[
        list[str] | None,
        typer.Option("--peer", callback=_known_peers, help="Only this one; may be repeated. All by default."),
    ] = None,
) -> Result:
    """Every named peer that can run here, and the pipeline; notes give the reason for the others."""
    chosen = list(dict.fromkeys((cliprl_contender.NAME, *(names or all_peers()))))
    absent = {name: reason for name in chosen[1:] if (reason := _unfit(name, job, log))}
    notes = [f"{name} skipped: {reason}" for name, reason in absent.items()]
    tasks = {name: (timed, (find_peer(name).prepare, job)) for name in chosen if name not in absent}
    for name in notes:
        log(name)
    return session.rounds(tasks, job.rounds, log, lambda answers: session.result(_series(answers), METHOD, notes))


def _series(answers: Answers) -> list[Series]:
    series = []
    for name in answers:
        series += rate_series(answers, name, find_peer(name).differs)
        if name != cliprl_contender.NAME:
            series += lead(answers, cliprl_contender.NAME, name)
    return series


def _unfit(name: str, job: BenchJob, log: LogFunction) -> str | None:
    """Return why a peer can't take part: not installed, or its own error, which must not end the run of the others."""
    if reason := find_peer(name).missing():
        return reason
    log(f"trying {name}")
    try:
        return in_fresh_process(trial, find_peer(name).prepare, job)
    except CliprlError as error:
        return str(error)
