"""The signals that end a run in good order: Ctrl-C (SIGINT), SIGTERM, and SIGHUP when a terminal is closed."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Those that a terminal sends to all processes in its foreground: a child process leaves them to its parent.
OF_TERMINALS = (signal.SIGINT, signal.SIGHUP)


@contextmanager
def on_ending_signals(end: Callable[[int], None]) -> Iterator[None]:
    """Call `end(number)` for each ending signal while the context lasts. For the main thread.

    SIGHUP stays ignored where it was before (nohup). It comes from the kernel and once more from the shell, so only the first
    counts, and what is printed to the lost terminal after it is discarded: an error there must not end the run.
    """
    hung_up = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal hung_up
        if number == signal.SIGHUP:
            hung_up = True
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _discard_output()
        end(number)

    handled = [n for n in ENDING if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if not (number == signal.SIGHUP and hung_up):
                signal.signal(number, handler)


def leave_to_parent() -> None:
    """Ignore the signals of terminals, in a child process whose parent ends it."""
    for number in OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)


def _discard_output() -> None:
    """Point standard output and error to /dev/null where they are a terminal."""
    for descriptor in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, descriptor)
                os.close(null)
