"""One clock for all pictures of a live stream, over reconnections, cards and cameras whose clocks drift."""

from __future__ import annotations

from fractions import Fraction

from cliprl.pipeline.core.frame import Frame

TIME_BASE = Fraction(1, 90_000)
# A camera's clock is followed; it is pulled towards ours by this share of the difference at every frame.
_PULL = 0.02
# Seconds of difference from which it is set anew.
_LEAP = 0.5
# Seconds without a frame after which there is no rate.
_SILENT = 1.0


class StreamClock:
    """Gives each picture its time since the first, in `TIME_BASE`, always after the last one's.

    A camera's own spacing is kept: what the network adds in jitter is not in the times.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self._offset = 0.0
        self._connection: int | None = None
        self._last = -1

    def stamp(self, frame: Frame, connection: int) -> None:
        """Set the time of a frame that the camera gave, over its connection number `connection`."""
        arrived = frame.times["captured"]
        lag = arrived - frame.seconds - self._offset
        if connection != self._connection or abs(lag) > _LEAP:
            self._connection, self._offset = connection, self._offset + lag
        else:
            self._offset += _PULL * lag
        duration = round(frame.duration * frame.time_base / TIME_BASE)
        self.stamp_at(frame, frame.seconds + self._offset, duration)

    def stamp_at(self, frame: Frame, moment: float, duration: int = 0) -> None:
        """Set the time of a picture shown at `moment`, by `time.monotonic()`."""
        if self._start is None:
            self._start = moment
        self._last = max(round((moment - self._start) / TIME_BASE), self._last + 1)
        frame.pts, frame.time_base, frame.duration = self._last, TIME_BASE, duration


class Rate:
    """Camera frames displayed a second, over about the last second."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._period = 0.0

    def count(self, now: float) -> float:
        """Count a frame displayed at `now`; the rate so far, 0 at the first."""
        if self._last is not None:
            step = now - self._last
            self._period = self._period + (step - self._period) * min(step, 1.0) if self._period else step
        self._last = now
        return 1 / self._period if self._period else 0.0

    def at(self, now: float) -> float:
        """The rate at `now`, where no frame has come: it falls, and is 0 after a second without."""
        silent = now - self._last if self._last is not None else _SILENT
        return min(1 / self._period, 1 / max(silent, self._period)) if self._period and silent < _SILENT else 0.0
