"""The signals that end a run in good order: Ctrl-C (SIGINT), SIGTERM, and SIGHUP when a terminal is closed."""

from __future__ import annotations

import math
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from types import FrameType
from typing import TypeVar, cast

_Returned = TypeVar("_Returned")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Those that a terminal sends to all processes in its foreground: a child process leaves them to its parent.
OF_TERMINALS = (signal.SIGINT, signal.SIGHUP)
# Seconds within which the same signal is one: `timeout` sends it to the process and to its group, other wrappers pass on Ctrl-C.
REPEAT_S = 0.25
# The signal by which `end_at_once` ended the run, if it did.
_ended: list[int] = []


def end_at_once(number: int) -> None:
    """End the run by raising KeyboardInterrupt for Ctrl-C, and SystemExit with the shell's status for other signals."""
    _ended[:] = [number]
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Call `end_at_once` for ending signals; where a library turned its exception into another error, raise it again.

    A module in C that is being loaded, for one, turns it into ImportError. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _ended.clear()
    try:
        with on_ending_signals(end_at_once, leave_ignored=ENDING):
            yield
    except Exception:
        if _ended:
            end_at_once(_ended[0])
        raise


@contextmanager
def on_ending_signals(end: Callable[[int], None], leave_ignored: tuple[int, ...] = (signal.SIGHUP,)) -> Iterator[None]:
    """Call `end(number)` for each ending signal while the context lasts. For the main thread.

    Those of `leave_ignored` stay ignored where they were before (SIGHUP by nohup). SIGHUP comes from the kernel and once more
    from the shell, so only the first counts, and what is printed to the lost terminal after it is discarded: an error there must
    not end the run. Others count once within `REPEAT_S`.
    """
    hung_up = False
    last: dict[int, float] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal hung_up
        before, last[number] = last.get(number, -math.inf), time.monotonic()
        if last[number] - before < REPEAT_S:
            return
        if number == signal.SIGHUP:
            hung_up = True
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            _discard_output()
        end(number)

    handled = [n for n in ENDING if n not in leave_ignored or signal.getsignal(n) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if not (number == signal.SIGHUP and hung_up):
                signal.signal(number, handler)


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[list[int]]:
    """Call `stop` for the first ending signal, and end the run at once for a second one. Yields the signals received."""
    received: list[int] = []

    def end(number: int) -> None:
        if received:
            end_at_once(number)
        received.append(number)
        stop()

    with on_ending_signals(end):
        yield received


class _Deferral:
    """Signals that came while nothing may be cut short, and whether one may end what is under way at once."""

    def __init__(self, end: Callable[[int], None]) -> None:
        self._end = end
        self._pending: list[int] = []
        self.interruptible = False

    def receive(self, number: int) -> None:
        """Keep the first signal for the next place that may be interrupted; a second one ends the run at once."""
        self._pending.append(number)
        if self.interruptible or len(self._pending) > 1:
            self.end_if_pending()

    def end_if_pending(self) -> None:
        """Call `end` for the first signal that was kept, if there is one."""
        if self._pending:
            number = self._pending[0]
            self._pending.clear()
            self._end(number)


_deferrals: list[_Deferral] = []


@contextmanager
def deferring_signals(end: Callable[[int], None]) -> Iterator[None]:
    """Call `end(number)`, which raises, for an ending signal, but in an `interruptible` part or at the end only.

    So what is being opened, made or finished elsewhere in the context is never half done. A second signal doesn't wait.
    """
    deferral = _Deferral(end)
    _deferrals.append(deferral)
    try:
        with on_ending_signals(deferral.receive):
            yield
            deferral.end_if_pending()
    finally:
        _deferrals.remove(deferral)


def end_if_deferred() -> None:
    """End the run by a signal that came before and is still deferred."""
    if _deferrals:
        _deferrals[-1].end_if_pending()


@contextmanager
def interruptible() -> Iterator[None]:
    """Let a signal end what may take long and owns no file, within `deferring_signals`; elsewhere this has no effect."""
    deferral = _deferrals[-1] if _deferrals and threading.current_thread() is threading.main_thread() else None
    if deferral is None or deferral.interruptible:
        yield
        return
    deferral.interruptible = True
    try:
        deferral.end_if_pending()
        yield
    finally:
        deferral.interruptible = False


def call_interruptibly(work: Callable[[], _Returned]) -> _Returned:
    """Call `work` on a thread and return what it returns, so that a signal ends the wait for it even inside a library.

    After a signal the thread is left behind; the end of the process ends it.
    """
    results: SimpleQueue[tuple[_Returned | None, BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            results.put((work(), None))
        except BaseException as error:
            results.put((None, error))

    with interruptible():
        threading.Thread(target=run, name="interruptible", daemon=True).start()
        result, error = results.get()
    if error is not None:
        raise error
    return cast(_Returned, result)


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
