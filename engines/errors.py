"""The exceptions for users: one line that names the value, the rule and the remedy."""

from __future__ import annotations


class CliprlError(Exception):
    """A run that failed for a reason the user can act on. The command line prints its text and exits with `exit_status`."""

    exit_status = 1


class UsageError(CliprlError):
    """A request that can't be served as it was put: a missing file, an unknown class, a bad option."""

    exit_status = 2


class BundleError(CliprlError):
    """An engine bundle that is incomplete, altered or of another format."""


class EngineError(CliprlError):
    """A network that could not be compiled or run."""


def reason_of(error: BaseException, line: int = 0) -> str:
    """Return one line of an error's text, by default the first; without text "too little memory" or the error's class."""
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    if lines:
        return lines[line]
    return "too little memory" if isinstance(error, MemoryError) else type(error).__name__
