"""Presentation times: those of the file, and a count at its rate where it has none."""

from __future__ import annotations

from fractions import Fraction

DEFAULT_RATE = Fraction(25)


class Clock:
    """Gives each picture its time. Times that repeat, go back or leap are kept as they are, and noted."""

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self._rate = rate or DEFAULT_RATE
        self._step = 1 / (self._rate * time_base)
        self._last: int | None = None
        self._due: float | None = None
        self._anchor = 0
        self._since = 0
        self.notes: dict[str, str] = {}

    def stamp(self, pts: int | None, duration: int, index: int) -> tuple[int, int]:
        """Time and duration of picture `index`, in units of the time base: those given, where there is a `pts`."""
        if pts is None:
            pts, duration = self._counted(index), round(self._step)
        else:
            self._compare(pts, index)
            self._anchor, self._since = pts, 0
        self._last, self._due = pts, pts + 1.5 * duration if duration else None
        return pts, duration

    def _compare(self, pts: int, index: int) -> None:
        if self._last is not None and pts <= self._last:
            self._note("back", f"times repeat or go back from frame {index} on: every frame is kept, with its own time")
        if self._due is not None and pts > self._due:
            self._note("leap", f"times leap at frame {index}: frames may be missing in the file")

    def _counted(self, index: int) -> int:
        rate = f"{float(self._rate):g} FPS"
        if self._last is None:
            self._note("none", f"the file has no times: frames are timed at {rate}")
            return 0
        if "none" not in self.notes:
            self._note("some", f"frame {index} has no time: it and others like it follow the frame before at {rate}")
        self._since += 1
        return self._anchor + round(self._since * self._step)

    def _note(self, key: str, text: str) -> None:
        self.notes.setdefault(key, text)
