"""OpenCV's own threads, which the pipeline does without while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

_lock = threading.Lock()
_inside = 0
_before = 1


@contextmanager
def single_threaded() -> Iterator[None]:
    """Within, OpenCV works on the calling thread alone, in the whole process; after the last of several, as before.

    The stages are the threads: what each has to do is a millisecond, and OpenCV's workers spin for longer than that before and
    after, on the processors that the networks need.
    """
    global _inside, _before
    with _lock:
        if not _inside:
            _before = cv2.getNumThreads()
            cv2.setNumThreads(1)
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                cv2.setNumThreads(_before)
