"""The pace of a file whose outputs are watched while it is read."""

from __future__ import annotations

import math
import threading
import time

from cliprl.pipeline.core.frame import Frame

# Seconds by which frames must be late in all for a note.
_LEAST_DELAY = 0.5


class RealTimePace:
    """Holds frames back until they are due at the file's own rate. What comes late delays all that follows."""

    def __init__(self) -> None:
        self._anchor, self._late = -math.inf, 0.0
        self._stopped = threading.Event()

    def wait(self, frame: Frame) -> None:
        """Wait as long after the first frame as the file says, or until `stop`."""
        anchor = max(self._anchor, time.monotonic() - frame.seconds)
        self._late += anchor - self._anchor if self._anchor > -math.inf else 0.0
        self._anchor = anchor
        self._stopped.wait(self._anchor + frame.seconds - time.monotonic())
        frame.mark("captured")

    def stop(self) -> None:
        """End the present wait and all later ones. For any thread or a signal handler."""
        self._stopped.set()

    @property
    def notes(self) -> list[str]:
        """One line if frames were late."""
        text = "longer than the input's own rate: the input or this machine is too slow for it"
        return [] if self._late < _LEAST_DELAY else [f"sending took {self._late:.1f} s {text}"]
