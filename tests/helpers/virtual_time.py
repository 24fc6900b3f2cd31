"""Virtual time for tests of what is measured by the clock: a neighbour on the machine cannot change a figure."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class VirtualClock:
    """Stands for the module `time` where it is patched in: it only moves when something is said to take time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The virtual time in seconds."""
        return self.now

    def time(self) -> float:
        """The same as the time of day."""
        return self.now

    def perf_counter(self) -> float:
        """The same as `monotonic`."""
        return self.now

    def process_time(self) -> float:
        """The same as processor time."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class VirtualLoader:
    """Stands for a pool of one thread of which each call takes `seconds` of virtual time, beside whatever else is done."""

    def __init__(self, clock: VirtualClock, seconds: float) -> None:
        self._clock, self._seconds, self._free = clock, seconds, 0.0

    def submit(self, make: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Begin a call as soon as the ones before it are done."""
        self._free = max(self._free, self._clock.now) + self._seconds
        return _Pending(self._clock, self._free, lambda: make(*arguments))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing runs."""


class _Pending(Future[Any]):
    def __init__(self, clock: VirtualClock, ready: float, make: Callable[[], Any]) -> None:
        super().__init__()
        self._clock, self._ready, self._make = clock, ready, make

    def result(self, timeout: float | None = None) -> Any:
        """What was asked for, at the virtual time when it is ready."""
        self._clock.now = max(self._clock.now, self._ready)
        return self._make()
