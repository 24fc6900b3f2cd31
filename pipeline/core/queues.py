"""A bounded queue between threads, and growing pauses between attempts."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def _starts(item: object) -> bool:
    return True


def _never_waits(item: object) -> float:
    return 0.0


class BoundedQueue(Generic[T]):
    """A thread-safe queue whose writers never wait.

    It is full when it holds `size` items or more and the oldest one has waited for its `span` in seconds. A full queue drops its
    oldest items, or with `keep_oldest` refuses the new one. An item for which `starts` is False is of use only after the item
    before it; it is dropped where that one is missing, also after `clear`. `dropped` counts all items that were lost.
    """

    def __init__(
        self,
        size: int,
        *,
        span: Callable[[T], float] = _never_waits,
        keep_oldest: bool = False,
        starts: Callable[[T], bool] = _starts,
    ) -> None:
        self.dropped = 0
        self.closed = False
        self.broken = False  # an item is missing before the next
        self.awaited = False  # the reader waits for an item
        self._size, self._span, self._keep_oldest, self._starts = size, span, keep_oldest, starts
        self._items: deque[T] = deque()
        self._arrivals: deque[float] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the next `put` drops an item."""
        if len(self._items) < self._size:
            return False
        span = self._span(self._items[0])
        return not span or time.monotonic() - self._arrivals[0] >= span

    def put(self, item: T, *, always: bool = False) -> list[T]:
        """Add an item, and return those that are dropped. `always`: add it to a full queue too, and drop none."""
        with self._changed:
            lost: list[T] = []
            while self.full and not always and not self._keep_oldest:
                lost += self._drop_oldest()
            is_refused = self.full or (self.broken and not self._starts(item))
            if is_refused and not always:
                lost.append(item)
                self.broken = True
            else:
                self.broken = self.broken and always
                self._items.append(item)
                self._arrivals.append(time.monotonic())
                self._changed.notify_all()
            self.dropped += len(lost)
            return lost

    def _drop_oldest(self) -> list[T]:
        """Remove the oldest item, and those that are of no use without it."""
        lost = [self._take()]
        while self._items and not self._starts(self._items[0]):
            lost.append(self._take())
        self.broken = not self._items
        return lost

    def _take(self) -> T:
        self._arrivals.popleft()
        return self._items.popleft()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is an item, the queue is closed, or `timeout` seconds have passed. Return whether there is one."""
        with self._changed:
            self._wait(timeout)
            return bool(self._items)

    def get(self, timeout: float | None = None) -> T | None:
        """Remove and return the oldest item; None after `timeout` seconds, or when the queue is empty and closed."""
        with self._changed:
            self._wait(timeout)
            return self._take() if self._items else None

    def _wait(self, timeout: float | None) -> None:
        self.awaited = True
        self._changed.wait_for(lambda: self._items or self.closed, timeout)
        self.awaited = False

    def peek(self) -> T:
        """Return the oldest item without removing it. For the only reader, after `wait`."""
        return self._items[0]

    def clear(self) -> list[T]:
        """Remove and return all items."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
            self._arrivals.clear()
            self.broken = True
            return items

    def close(self) -> None:
        """Let `wait` and `get` return at once when the queue is empty."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait `seconds`, or until the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed, seconds)


class Backoff:
    """Pauses between attempts, in seconds: each is twice the last, from `first` up to `longest`."""

    def __init__(self, first: float, longest: float) -> None:
        self._first, self._longest = first, longest
        self._pause = first

    def next(self, longest: float | None = None) -> float:
        """Return the next pause. `longest` replaces the upper limit this time."""
        pause = min(self._pause, self._longest if longest is None else longest)
        self._pause = 2 * pause
        return pause

    def reset(self) -> None:
        """Start again with the first pause."""
        self._pause = self._first
