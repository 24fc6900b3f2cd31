"""Wait for what a test expects of another thread or process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

# Seconds after which a test fails: far longer than a machine whose processors are busy takes.
PATIENCE = 180.0


def until(fine: Callable[[], Any]) -> Any:
    """Return what `fine` returns, once that is true. Fails after `PATIENCE` seconds."""
    deadline = time.monotonic() + PATIENCE
    while not (value := fine()):
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)
    return value
