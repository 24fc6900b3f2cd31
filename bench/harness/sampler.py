"""Sample a quantity ten times a second."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Sampler(threading.Thread):
    """Calls `sample` ten times a second from its start to `stop`, and keeps the results that are not None."""

    def __init__(self, sample: Callable[[], float | None]) -> None:
        super().__init__(daemon=True)
        self.values: list[float] = []
        self._sample, self._ended = sample, threading.Event()

    def run(self) -> None:
        """Sample until `stop`."""
        while not self._ended.wait(0.1):
            value = self._sample()
            if value is not None:
                self.values.append(value)

    def stop(self) -> list[float]:
        """End the thread and return the samples."""
        self._ended.set()
        self.join(5)
        return self.values
