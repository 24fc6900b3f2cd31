"""Timestamps of a live stream that ascend across reconnections and cards, and the displayed frame rate."""

from __future__ import annotations

from fractions import Fraction

from cliprl.pipeline.core.frame import Frame

TIME_BASE = Fraction(1, 90_000)
# Share of the difference to the local clock by which a camera's clock is corrected at each frame.
_CORRECTION = 0.02
# Difference in seconds at which the offset is set anew.
_RESET_S = 0.5
# Seconds without a frame after which the rate is 0.
_SILENT_S = 1.0


class StreamClock:
    """Stamps frames with the time since the first, in `TIME_BASE`, strictly ascending.

    The spacing of the camera's timestamps is kept, so network jitter does not affect them.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._offset = 0.0
        self._connection: int | None = None
        self._last = -1

    def stamp(self, frame: Frame, connection: int) -> None:
        """Set the time of a camera frame that came over connection number `connection`."""
        arrived = frame.times["captured"]
        lag = arrived - frame.seconds - self._offset
        if connection != self._connection or abs(lag) > _RESET_S:
            self._connection, self._offset = connection, self._offset + lag
        else:
            self._offset += _CORRECTION * lag
        duration = round(frame.duration * frame.time_base / TIME_BASE)
        self.stamp_at(frame, frame.seconds + self._offset, duration)

    def stamp_at(self, frame: Frame, moment: float, duration: int = 0) -> None:
        """Set the time of a frame displayed at `moment`, by `time.monotonic()`."""
        if self._start is None:
            self._start = moment
        self._last = max(round((moment - self._start) / TIME_BASE), self._last + 1)
        frame.pts, frame.time_base, frame.duration = self._last, TIME_BASE, duration


class Rate:
    """The rate of displayed camera frames over about the last second, in Hz."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._period = 0.0

    def count(self, now: float) -> float:
        """Count a frame displayed at `now`, in seconds. Return the rate; 0 at the first frame."""
        if self._last is not None:
            step = now - self._last
            self._period = self._period + (step - self._period) * min(step, 1.0) if self._period else step
        self._last = now
        return 1 / self._period if self._period else 0.0

    def at(self, now: float) -> float:
        """Return the rate at `now` without a new frame: it falls, and is 0 after a second."""
        silent = now - self._last if self._last is not None else _SILENT_S
        return min(1 / self._period, 1 / max(silent, self._period)) if self._period and silent < _SILENT_S else 0.0
