"""`cliprl-bench peers`: everything that is installed here, on one clip, in one interleaved run."""

from __future__ import annotations

from collections.abc import Sequence

from cliprl.bench import ours, peers
from cliprl.bench.job import Job, Say, interleaved
from cliprl.bench.result import Result
from cliprl.bench.session import Session
from cliprl.bench.stream import lead, rate_series

METHOD = {
    "includes": "opening the clip, all the work that the peer does (see its note), closing its output",
    "excludes": "starting Python, importing, loading or exporting networks, warm-up runs",
    "pace": "as fast as possible",
}


def measure(session: Session, job: Job, say: Say, names: Sequence[str]) -> Result:
    """Every named contender that can run here, and the pipeline; the others are named with the reason."""
    chosen = list(dict.fromkeys((ours.NAME, *names)))
    absent = {name: reason for name in chosen if (reason := peers.contender(name).missing())}
    notes = [f"{name} skipped: {reason}" for name, reason in absent.items()]
    tasks = {name: (peers.timed, (name, job)) for name in chosen if name not in absent}
    for name in notes:
        say(name)
    answers = interleaved(tasks, job.rounds, say)
    series = []
    for name in tasks:
        series += rate_series(answers, name, peers.contender(name).differs)
        if name != ours.NAME:
            series += lead(answers, ours.NAME, name)
    return session.result(series, METHOD, notes)
