"""`cliprl-bench peers`: everything that is installed here, on one clip, in one interleaved run."""

from __future__ import annotations

from collections.abc import Sequence

from cliprl.bench import peers
from cliprl.bench.commands.stream import lead, rate_series
from cliprl.bench.harness.result import Result, Series
from cliprl.bench.harness.result_session import ResultSession
from cliprl.bench.harness.subprocess_call import in_fresh_process
from cliprl.bench.harness.timing import Answers, BenchJob, Say
from cliprl.bench.peers import cliprl_contender
from cliprl.engines import CliprlError

METHOD = {
    "includes": "opening the clip, all the work that the peer does (see its note), closing its output",
    "excludes": "starting Python, importing, loading or exporting networks, warm-up runs",
    "pace": "as fast as possible; a slow peer gets as many of the clip's first frames as it does in three times the seconds",
}


def measure(session: ResultSession, job: BenchJob, say: Say, names: Sequence[str]) -> Result:
    """Every named contender that can run here, and the pipeline; the others are named with the reason."""
    chosen = list(dict.fromkeys((cliprl_contender.NAME, *names)))
    absent = {name: reason for name in chosen[1:] if (reason := _unfit(name, job, say))}
    notes = [f"{name} skipped: {reason}" for name, reason in absent.items()]
    tasks = {name: (peers.timed, (name, job)) for name in chosen if name not in absent}
    for name in notes:
        say(name)
    return session.rounds(tasks, job.rounds, say, lambda answers: session.result(_series(answers), METHOD, notes))


def _series(answers: Answers) -> list[Series]:
    series = []
    for name in answers:
        series += rate_series(answers, name, peers.contender(name).differs)
        if name != cliprl_contender.NAME:
            series += lead(answers, cliprl_contender.NAME, name)
    return series


def _unfit(name: str, job: BenchJob, say: Say) -> str | None:
    """Why a peer can't take part: not installed, or an error of its own; one that fails must not end the others' run."""
    if reason := peers.contender(name).missing():
        return reason
    say(f"trying {name}")
    try:
        return in_fresh_process(peers.trial, name, job)
    except CliprlError as error:
        return str(error)
