"""Call functions in fresh processes, which may report intermediate results and end with the measurement."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.resource_tracker import ensure_running
from typing import Any, TypeVar

from cliprl.engines import CliprlError
from cliprl.engines.cli.signals import ENDING, OF_TERMINALS, leave_to_parent

ResultT = TypeVar("ResultT")
REPORT, ANSWER, ERROR = "report", "answer", "error"
# Seconds that a process has to clean up when it is ended early.
_PATIENCE = 10.0
_line: Connection | None = None


def in_fresh_process(
    function: Callable[..., ResultT], *arguments: Any, on_report: Callable[[Any], None] | None = None
) -> ResultT:
    """Call a module-level function in a fresh process, without caches of earlier runs and with its own CPU time.

    `on_report` receives the values that the function passes to `send_value`. Raises the function's exception, or
    CliprlError if the process died. An exception here, from a signal or from `on_report`, ends the process.
    """
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(there, function, arguments))
    try:
        with undisturbed_start():
            process.start()
        there.close()
        while (message := here.recv())[0] == REPORT:
            if on_report is not None:
                on_report(message[1])
    except EOFError:
        raise CliprlError("the measured process died: run the same with cliprl-stream to see why") from None
    finally:
        here.close()
        end_process(process)
    if message[0] == ERROR:
        raise message[1]
    answer: ResultT = message[1]
    return answer


@contextmanager
def undisturbed_start() -> Iterator[None]:
    """Delay signals while a process is being started.

    The process itself ignores Ctrl-C and hangup, which a terminal sends to all processes; its parent ends it.
    """
    came: list[int] = []
    ensure_running()  # the start of multiprocessing's helper process lets Ctrl-C through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINALS)
    main = threading.current_thread() is threading.main_thread()  # only the main thread handles signals
    handlers = {n: signal.signal(n, lambda number, frame: came.append(number)) for n in ENDING if main}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if came:
            signal.raise_signal(came[0])


def end_process(process: BaseProcess) -> None:
    """End a process: wait for it, unless an exception is being handled, then terminate it, then kill it."""
    if process.pid is None:
        return
    process.join(0.0 if sys.exc_info()[0] else _PATIENCE)
    if process.is_alive():
        process.terminate()
        process.join(_PATIENCE)
    if process.is_alive():
        process.kill()
    process.join()


def send_value(value: Any) -> None:
    """Send a value to the process that called `in_fresh_process`; elsewhere do nothing."""
    if _line is not None:
        _line.send((REPORT, value))


@contextmanager
def ended_by_parent() -> Iterator[None]:
    """In a child process: its parent's SIGTERM raises SystemExit inside, and is ignored after it, while the interpreter ends.

    An exception then would cut its clean-up short and be printed. The signals of terminals are always ignored.
    """
    leave_to_parent()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _call(line: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    global _line
    with ended_by_parent():
        _line = line
        try:
            answer = (ANSWER, function(*arguments))
        except Exception as error:
            error.add_note(traceback.format_exc())
            answer = (ERROR, error)
        line.send(answer)
