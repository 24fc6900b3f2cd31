"""Errors of a group of sinks: one that is no sink, and those at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence

from cliprl.engines import CliprlError, UsageError


def failure_at_end(sink: object, failure: Exception) -> CliprlError:
    """Return the error of a sink that could not be finished."""
    if isinstance(failure, CliprlError):
        return failure
    error = CliprlError(f"{type(sink).__name__} failed at its end: {failure!r}")
    error.__cause__ = failure
    return error


def report_failures(failures: Sequence[CliprlError], error: BaseException | None) -> None:
    """Raise one CliprlError for all failures at the end of a run; an `error` of the run gets them as a note instead."""
    text = "; ".join(str(failure) for failure in failures)
    if failures and isinstance(error, Exception):
        error.add_note(text)
    elif failures:
        raise CliprlError(text) from failures[0]


def check_sink(sink: object) -> None:
    """Raise UsageError if a sink lacks a part of the protocol, before it is given a frame."""
    missing = [
        name
        for owner, names in ((type(sink), ("__enter__", "__exit__")), (sink, ("write", "close")))
        for name in names
        if not callable(getattr(owner, name, None))
    ]
    if missing:
        raise UsageError(
            f"the sink {type(sink).__name__} lacks {', '.join(missing)}: see cliprl.pipeline.core.interfaces.Sink"
        )
