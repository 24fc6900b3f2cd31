"""Threads that hand work on to each other through short queues, and end together whatever happens."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

# Items that may wait between two stages. With one, 3 % of the frames a second are lost to stages that wait for each other; with
# three no more is won than with two.
WAITING = 2


class Stage(threading.Thread, Generic[In, Out]):
    """Takes items (`take` returns None at the end), works on each, and offers the results to one consumer through `get`.

    An error of `take` or `work` reaches the consumer in its place in the order. After one, `fail` is called, and the
    stage goes on emptying its input, so that whoever fills it can end.
    """

    def __init__(
        self, name: str, take: Callable[[], In | None], work: Callable[[In], Out], fail: Callable[[], None]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._take, self._work, self._fail = take, work, fail
        self._results: queue.Queue[Out | BaseException | None] = queue.Queue(WAITING)
        self._ended = False

    def run(self) -> None:
        """The thread's body."""
        try:
            while (item := self._take()) is not None:
                self._results.put(self._work(item))
            self._results.put(None)
        except BaseException as error:
            self._fail()
            self._results.put(error)
            _drain(self._take)

    def get(self) -> Out | None:
        """The next result; waits for it. None at the end and ever after. Raises what the stage, or one before it, raised."""
        result = None if self._ended else self._results.get()
        self._ended = result is None or isinstance(result, BaseException)
        if isinstance(result, BaseException):
            raise result
        return result

    def __iter__(self) -> Iterator[Out]:
        while (result := self.get()) is not None:
            yield result

    def drain(self) -> None:
        """Throw away what is still to come, so that the thread can end."""
        _drain(self.get)


def _drain(get: Callable[[], object]) -> None:
    try:
        while get() is not None:
            pass
    except BaseException:
        return  # the consumer has been told of an error already; what follows from it is of no interest
