"""`cliprl-bench peers`: all installed peers on one clip, in one interleaved run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from cliprl.bench.commands.stream import own_rounds, pair_lead, rate_series
from cliprl.bench.harness.pairs import PairedRounds
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
    "pairs": "cliprl-stream takes turns with each peer, a few seconds each, in processes that stay ready",
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
    others = {name: (find_peer(name).prepare, job) for name in chosen[1:] if name not in absent}
    for name in notes:
        log(name)
    first = (cliprl_contender.prepare, job)
    if not others:
        alone = {cliprl_contender.NAME: (timed, first)}
        return session.rounds(alone, job.rounds, log, lambda answers: session.result(_alone(answers), METHOD, notes))
    return session.pairs(
        cliprl_contender.NAME, first, others, log, lambda answers: session.result(peer_series(answers), METHOD, notes)
    )


def _alone(answers: Answers) -> list[Series]:
    """The rate of the stream where no peer can run."""
    return rate_series(answers[cliprl_contender.NAME], cliprl_contender.NAME, find_peer(cliprl_contender.NAME).differs)


def peer_series(answers: Mapping[str, PairedRounds]) -> list[Series]:
    """Rates of the stream and of each peer, and the ratio of the two in their pair."""
    own = own_rounds(answers)
    series = rate_series(own, cliprl_contender.NAME, find_peer(cliprl_contender.NAME).differs)
    for name, pair in answers.items():
        series += [*rate_series(pair.other, name, find_peer(name).note()), *pair_lead(pair, name)]
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
