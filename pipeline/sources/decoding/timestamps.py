"""Presentation times: those of the file, put in order, and a count at its rate where it has none."""

from __future__ import annotations

from bisect import insort
from fractions import Fraction
from typing import Any

DEFAULT_RATE = Fraction(25)
# So many frames in a row that have no time of their own are put into the step of one; more are a clock that stands still.
_CROWDED = 2


class PresentationClock:
    """Gives each picture its time, later than that of the one before. Times are kept where they are in order."""

    def __init__(self, time_base: Fraction, rate: Fraction | None, zero: int = 0) -> None:
        """`zero` is the time, in units of `time_base`, that becomes zero."""
        self._zero = zero
        self._rate = rate or DEFAULT_RATE
        self._step = 1 / (self._rate * time_base)
        self._last: int | None = None
        self._due: float | None = None
        self._anchor = 0
        self._since = 0
        self._stuck = 0
        self.notes: dict[str, str] = {}

    def stamp(self, pts: int | None, duration: int, index: int) -> tuple[int, int]:
        """Time and duration of picture `index`, in units of the time base: those given, where `pts` lies behind the last."""
        if pts is None:
            pts, duration = self._counted(index), round(self._step)
        else:
            if self._due is not None and pts - self._zero > self._due:
                self._note("leap", f"times leap at frame {index}: frames may be missing in the file")
            pts = self._ordered(pts - self._zero, index)
            self._anchor, self._since = pts, 0
        self._last, self._due = pts, pts + 1.5 * duration if duration else None
        return pts, duration

    def _ordered(self, pts: int, index: int) -> int:
        """`pts` where it lies behind the last time. Else a time before the next frame is due, or, of a clock that stands
        still, at the rate."""
        if self._last is None or pts > self._last:
            self._stuck = 0
            return pts
        self._note("back", f"times repeat or go back from frame {index} on: such frames are put behind the one before")
        self._stuck += 1
        step = self._step / 2**self._stuck if self._stuck <= _CROWDED else self._step
        return self._last + max(int(step), 1)

    def _counted(self, index: int) -> int:
        rate = f"{float(self._rate):g} FPS"
        if self._last is None:
            self._note("none", f"the file has no times: frames are timed at {rate}")
            return 0
        if "none" not in self.notes:
            self._note("some", f"frame {index} has no time: it and others like it follow the frame before at {rate}")
        self._since += 1
        return max(self._anchor + round(self._since * self._step), self._last + 1)

    def _note(self, key: str, text: str) -> None:
        self.notes.setdefault(key, text)


class DisplayOrder:
    """Presentation times of a stream whose packets have only the times of decoding, such as H.264 with B-frames in AVI.

    Decoders give pictures in the order of display. As long as the times of the packets never go back, which those of a
    stream with B-frames must, picture n takes the nth of them.
    """

    def __init__(self) -> None:
        self._is_decoding_order = True
        self._last: int | None = None
        self._free: list[int] = []  # times that no picture took yet, sorted
        self._inside: list[int] = []  # packets that gave no picture yet, sorted by their own time

    def sent(self, packet: Any) -> None:
        """A packet goes to the decoder. One with a time of decoding alone takes that as its own."""
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is None or packet.is_discard or not self._is_decoding_order:
            return
        if self._last is not None and packet.pts < self._last:
            self._is_decoding_order = False
            return
        self._last = packet.pts
        insort(self._free, packet.pts)
        insort(self._inside, packet.pts)

    def restart(self) -> None:
        """The decoder was emptied: packets that gave no picture will give none."""
        self._free.clear()
        self._inside.clear()

    def time(self, own: int | None, *, is_key: bool, reorders: bool) -> int | None:
        """The time of the next picture; `own` is that of its packet. `reorders`: the decoder changes the order of pictures."""
        if not self._is_decoding_order or own is None or own not in self._inside:
            return own
        if is_key:  # all packets before a key picture have come out by now, or never will
            while self._inside[0] < own:
                del self._inside[0], self._free[0]
        self._inside.remove(own)
        first = self._free.pop(0)
        return first if reorders else own
