"""A bounded queue between threads, and growing pauses between attempts."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class BoundedQueue(Generic[T]):
    """A thread-safe queue of at most `size` items whose writers never wait.

    A full queue drops its oldest item, or with `keep_oldest` refuses the new one. `dropped` counts both.
    """

    def __init__(self, size: int, *, keep_oldest: bool = False) -> None:
        self.dropped = 0
        self.closed = False
        self._size, self._keep_oldest = size, keep_oldest
        self._items: deque[T] = deque()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether the next `put` drops an item."""
        return len(self._items) >= self._size

    def put(self, item: T, *, always: bool = False) -> None:
        """Add an item. `always`: add it to a full queue too, and drop none."""
        with self._changed:
            if self.full and not always:
                self.dropped += 1
                if self._keep_oldest:
                    return
                self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is an item, the queue is closed, or `timeout` seconds have passed. Return whether there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self.closed, timeout)
            return bool(self._items)

    def get(self, timeout: float | None = None) -> T | None:
        """Remove and return the oldest item; None after `timeout` seconds, or when the queue is empty and closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self.closed, timeout)
            return self._items.popleft() if self._items else None

    def peek(self) -> T:
        """Return the oldest item without removing it. For the only reader, after `wait`."""
        return self._items[0]

    def clear(self) -> list[T]:
        """Remove and return all items."""
        with self._changed:
            items = list(self._items)
            self._items.clear()
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
