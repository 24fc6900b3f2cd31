"""A scheduler that runs the stages of a stream on no more threads than there are processors."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cliprl.pipeline.core.buffers import FrameRing
from cliprl.pipeline.core.frame import Frame, FrameContext, Profiler, Stage

Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
# Results that may wait behind a stage, unfinished ones included. One costs 3 % of the frames per second, because stages then
# wait for each other; three gain nothing over two.
WAITING = 2


class Supply(Protocol[Item_co]):
    """A source of items. While `ready`, `take` returns without waiting for others: an item, None at the end, or an exception.

    The supply calls `on_ready` when it becomes ready. After `stop` it need not wait for its items to be taken.
    """

    on_ready: Callable[[], None]

    @property
    def ready(self) -> bool: ...  # noqa: D102

    def take(self) -> Item_co | None: ...  # noqa: D102

    def stop(self) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class _End:
    """The last entry of every queue: the end of the stream, or the error that was raised in place of an item."""

    error: BaseException | None = None


@dataclass(slots=True, eq=False)
class _Place(Generic[Item]):
    """The place of an item behind a stage: its result, None while the stage computes it."""

    result: Item | _End | None = None


class StageScheduler(Generic[Item]):
    """Runs every stage on every item and returns the items in their order.

    A stage works on one item at a time, or on `at_once`; different stages run in parallel on up to `workers` threads. With a
    worker for each stage, each stage has a fixed thread, and one item. With fewer, every worker runs any stage that is ready,
    and so does the consumer while it waits: more threads than processors preempt each other in the middle of their work, and
    the operating system leaves one processor idle while threads queue for another (8 % of the time on two cores). A worker
    prefers the stages that it ran last, because their memory is still in the cache of its processor: 5 % more frames per
    second than the first stage that is ready. Taking an item is part of the first stage. A source that has a thread, because
    it may wait, takes a turn with the workers (`processors`): were it run beside them, the operating system would give each
    two thirds of a processor, and the slowest stage, writing large frames, would hold up all others.

    An error of the supply or of a stage reaches the consumer at its place in the order; then `Supply.stop` is called, and no
    item follows.
    """

    def __init__(self, supply: Supply[Item], stages: Sequence[Stage[Item]], workers: int) -> None:
        self._supply, self._stages = supply, stages
        self._results: list[deque[_Place[Item]]] = [deque() for _ in stages]
        self._idle = [stage.at_once for stage in stages]  # how many more items each stage may work on
        self._last = [0] * len(stages)  # identifier of the thread that ran the stage last
        self._exhausted = self._closed = False
        self._changed = threading.Condition()
        everything = range(len(stages))
        self._shared = everything if workers < len(stages) else range(0)
        # A thread holds one of these while it computes: one for each processor where these are few, else one for each thread.
        self.processors = threading.Semaphore(workers + (1 if self._shared else 2))
        names = [f"worker {i + 1}" for i in range(workers)] if self._shared else [stage.name for stage in stages]
        self.threads = [
            threading.Thread(target=self._serve, args=(self._shared or (i,),), name=name, daemon=True)
            for i, name in enumerate(names)
        ]
        supply.on_ready = self._wake

    def start(self) -> None:
        """Start the workers."""
        for thread in self.threads:
            thread.start()

    def get(self) -> Item | None:
        """Return the next finished item, and run stages while waiting. None at the end. Raises a stage's error at its place."""
        while not self._closed:
            with self._changed:
                task = None
                while not self._has_result(-1) and (task := self._next(self._shared)) is None:
                    self._changed.wait()
                result = None if task else self._results[-1].popleft().result
                self._changed.notify_all()
            if isinstance(result, _End):
                self.close()
                if result.error is not None:
                    raise result.error
            elif result is not None:
                return result
            elif task is not None:
                self._run(*task)
        return None

    def __iter__(self) -> Iterator[Item]:
        while (result := self.get()) is not None:
            yield result

    def close(self) -> None:
        """End every worker after its current task. Unfinished items are lost."""
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
            self._run(*task)

    def _next(self, stages: Sequence[int]) -> tuple[int, Item | _End | None, _Place[Item]] | None:
        """Reserve a stage that can run now. Return it with its item, and the place for the result.

        The item is None for the first stage, which takes one of the supply.
        """
        me = threading.get_ident()
        for i in sorted(stages, key=lambda stage: self._last[stage] != me):
            if self._can_run(i):
                self._last[i] = me
                self._idle[i] -= 1
                self._results[i].append(place := _Place[Item]())
                return i, self._take_result(i - 1) if i else None, place
        return None

    def _has_result(self, stage: int) -> bool:
        return bool(self._results[stage]) and self._results[stage][0].result is not None

    def _take_result(self, stage: int) -> Item | _End | None:
        """Return the oldest result of a stage. If the stage was waiting for room, it can run again now."""
        results = self._results[stage]
        if len(results) == WAITING:
            self._changed.notify_all()
        return results.popleft().result

    def _can_run(self, stage: int) -> bool:
        if not self._idle[stage] or self._closed or len(self._results[stage]) >= WAITING:
            return False
        return self._has_result(stage - 1) if stage else not self._exhausted and self._supply.ready

    def _take(self) -> Item | _End:
        try:
            taken = self._supply.take()
        except BaseException as error:
            taken, end = None, _End(error)
        else:
            end = _End()
        self._exhausted = taken is None
        return end if taken is None else taken

    def _run(self, stage: int, item: Item | _End | None, place: _Place[Item]) -> None:
        with self.processors:
            result = self._take() if item is None else item
            if not isinstance(result, _End):
                try:
                    self._stages[stage].run(result)
                except BaseException as error:
                    self._supply.stop()
                    result = _End(error)
        with self._changed:
            place.result = result
            self._idle[stage] += 1
            self._changed.notify_all()


class ContextSupply:
    """A `Supply` that takes frames from a ring and wraps each in a new `FrameContext`."""

    def __init__(self, ring: FrameRing, profiler: Profiler = nullcontext) -> None:
        self._ring, self._profiler, self.stop = ring, profiler, ring.stop
        self.on_ready: Callable[[], None] = lambda: None
        ring.on_ready = lambda: self.on_ready()

    @property
    def ready(self) -> bool:
        """Whether `take` returns at once."""
        return self._ring.ready

    def take(self) -> FrameContext | None:
        """Return the context of the oldest frame that was not taken yet; None at the end."""
        frame = self._ring.take()
        return None if frame is None else FrameContext(frame, self._profiler)


class SourceSupply(ContextSupply):
    """A `Supply` that reads frames of a source, which never waits, into the free slots of a ring when they are taken."""

    def __init__(self, ring: FrameRing, frames: Iterator[Frame], profiler: Profiler = nullcontext) -> None:
        super().__init__(ring, profiler)
        self._frames = frames

    @property
    def ready(self) -> bool:
        """Whether there is a free slot."""
        return self._ring.writable

    def take(self) -> FrameContext | None:
        """Read the next frame and return its context; None at the end."""
        if (frame := next(self._frames, None)) is None:
            return None
        self._ring.publish(frame)
        return super().take()
