"""Whether a lock is held, asked from another thread: a reentrant lock can't be asked in its own."""

from __future__ import annotations

import threading
from typing import Any


def is_locked(lock: Any) -> bool:
    taken: list[bool] = []

    def take() -> None:
        taken.append(lock.acquire(blocking=False))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return not taken[0]
