"""The queue of packets between the thread that reads a live stream and the one that decodes it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from cliprl.pipeline.sources.decoding.arrival_clock import ArrivalClock, PacketStamp

# Packets older than `LATE_SECONDS` for `_HOLD` seconds without a break are skipped: a decoder that only had to pause
# catches up by itself, and nothing is lost.
LATE_SECONDS, _HOLD = 0.5, 0.5
# The most that waits: packets, bytes, and seconds of media where the reader may wait.
_PACKETS, _BYTES, _SECONDS = 2000, 64 << 20, 10.0
# After packets were dropped without a newer key frame, one is waited for; not longer, for some streams have none.
_PATIENCE = 10.0


class Overdue:
    """Whether something is late, and has been for a while."""

    def __init__(self, late: float = LATE_SECONDS, hold: float = _HOLD) -> None:
        self._late, self._hold = late, hold
        self._since: float | None = None

    def __call__(self, age: float, now: float) -> bool:
        """Note an `age` in seconds at the time `now`; whether each one noted in the last seconds was too high."""
        if age <= self._late:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        return now - self._since >= self._hold


@dataclass(frozen=True, slots=True)
class Arrived:
    """A packet, its arrival, its size in bytes, and whether decoding can begin with it."""

    packet: Any
    stamp: PacketStamp
    size: int
    key: bool


class LivePacketQueue:
    """Holds packets in decoding order: the newest groups of frames. `skipped` counts those that are never decoded.

    What overflows, or has been late for a while, is dropped up to the newest key frame. `stored`: of a stream that comes in
    stored parts, such as HLS, nothing is dropped; its reader waits while `full`. Not thread-safe.
    """

    def __init__(self, clock: ArrivalClock, *, stored: bool = False) -> None:
        self.skipped = 0
        self._clock, self._stored = clock, stored
        self._items: deque[Arrived] = deque()
        self._bytes = 0
        self._broken = False
        self._awaited: float | None = None
        self._overdue = Overdue()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def full(self) -> bool:
        """Whether no more should be read."""
        span = self._items[-1].stamp.arrived - self._items[0].stamp.arrived if self._items else 0.0
        media = [item.stamp.media for item in (self._items[0], self._items[-1])] if self._items else []
        if media and media[0] is not None and media[1] is not None:
            span = media[1] - media[0]
        return span > _SECONDS or self._is_over()

    def put(self, item: Arrived) -> None:
        """Append a packet, or leave it out while a key frame is waited for."""
        if self._awaited is not None:
            if not item.key and item.stamp.arrived - self._awaited < _PATIENCE:
                self.skipped += 1
                return
            self._awaited = None
        self._items.append(item)
        self._bytes += item.size
        if self._is_over() and not self._stored and not self._skip():
            self._drop(len(self._items))
            self._awaited = item.stamp.arrived

    def take(self, now: float) -> tuple[Arrived, bool] | None:
        """The next packet to decode, and whether those before it were dropped since the last; None if none waits."""
        if not self._items:
            return None
        age = now - self._clock.due(self._items[0].stamp)
        if self._overdue(age, now) and not self._stored:
            self._skip()
        item, broken = self._items.popleft(), self._broken
        self._bytes -= item.size
        self._broken = False
        return item, broken

    def _is_over(self) -> bool:
        return len(self._items) > _PACKETS or self._bytes > _BYTES

    def _skip(self) -> bool:
        """Drop what lies before the newest key frame; whether there is one with something before it."""
        newest = next((i for i in range(len(self._items) - 1, 0, -1) if self._items[i].key), 0)
        self._drop(newest)
        return newest > 0

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= self._items.popleft().size
        self.skipped += count
        self._broken = self._broken or count > 0
