"""The lateness of live frames: media times compared with the clock at arrival."""

from __future__ import annotations

from typing import NamedTuple

# A step of media time that is further ahead of the clock, or further back, in seconds, is another clock's, not a delay. Media
# time that stays the same for longer is that of a clock that stands still.
_JUMP, _BACK, _STILL = 0.5, 0.1, 0.5
# A camera's clock may be slower than ours by this share (that of 29.97 and 30 FPS is half of it). It is followed only while
# packets are late by less than `_SMALL` seconds, so that a backlog, which grows far faster, is never taken for a slow clock.
_DRIFT, _SMALL = 2e-3, 0.1


class PacketStamp(NamedTuple):
    """A packet's arrival by `time.monotonic()`, and its media time in seconds, continuous over jumps; None if it has none."""

    arrived: float
    media: float | None


class ArrivalClock:
    """Estimates how late packets arrive, and so how old a frame is, in whichever buffer it has waited.

    The smallest difference of arrival and media time seen so far is that of a packet which has waited nowhere. By how much
    another one's is larger, so long has it waited: in this process, in the kernel's buffers, on the network or in the server.
    What is the same for all packets, such as the camera's own delay, can't be known, and is not counted. Not thread-safe.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._shift = 0.0
        self._arrived = self._order = self._late = self._moved = 0.0

    def stamp(self, media: float | None, order: float | None, now: float, *, waited: bool) -> PacketStamp:
        """Note a packet that arrives at `now`: its presentation and decoding time in seconds, None if it has none.

        waited: whether the packet had to be waited for, so that none lay ready before it.
        """
        if media is None:
            return PacketStamp(now, None)
        order = media if order is None else order
        if self._offset is None:
            self._offset = now - media
        elif self._late < _SMALL:
            self._offset += _DRIFT * min(max(now - self._arrived, 0.0), 1.0)
        self._moved = self._moved if order == self._order else now
        late = now - media - self._shift - self._offset
        is_still = now - self._moved > _STILL
        if self._arrived and (is_still or order - self._order < -_BACK or late < -_JUMP):
            late = 0.0 if waited else self._late
            self._shift = now - media - self._offset - late
        self._offset += min(late, 0.0)
        self._arrived, self._order, self._late = now, order, max(late, 0.0)
        return PacketStamp(now, media + self._shift)

    def due(self, stamp: PacketStamp) -> float:
        """When a packet would have arrived without any backlog, by `time.monotonic()`; never after its arrival."""
        if stamp.media is None or self._offset is None:
            return stamp.arrived
        return min(stamp.arrived, stamp.media + self._offset)
