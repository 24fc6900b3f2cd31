"""Packets of a live stream: the thread that reads them, and the queue between it and the one that decodes."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import av
from av.format import Flags

from cliprl.pipeline.sources.decoding.arrival_clock import ArrivalClock, PacketStamp
from cliprl.pipeline.sources.decoding.demux import Demuxer, Packet, SharedDemuxer
from cliprl.pipeline.sources.decoding.low_latency import TIMEOUT, ParserBypass, has_key
from cliprl.pipeline.sources.decoding.timeline import Timeline

# Packets older than `LATE_SECONDS` for `_HOLD` seconds without a break are skipped: a decoder that only had to pause
# catches up by itself, and nothing is lost.
LATE_SECONDS, _HOLD = 0.5, 0.5
# The most that waits: packets, bytes, and seconds of media where the reader may wait.
_PACKETS, _BYTES, _SECONDS = 2000, 64 << 20, 10.0
# After packets were dropped without a newer key frame, one is waited for; not longer, for some streams have none.
_PATIENCE = 10.0


class Overdue:
    """Whether something is late, and has been for a while."""

    _since: float | None = None

    def __call__(self, age: float, now: float) -> bool:
        """Note an `age` in seconds at the time `now`; whether each one noted in the last seconds was too high."""
        if age <= LATE_SECONDS:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        return now - self._since >= _HOLD


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


# A read that takes longer than this, in seconds, has waited for the sender.
_WAITED = 0.002
# Demuxers of streams that come in stored parts, of which several may lie ready.
_STORED = ("hls", "dash")
_NO_TIMES: Any = Flags.no_timestamps.value
# How long closing waits for a read that is under way, and a reader for room, in seconds.
_CLOSING, _TICK = 1.0, 0.05
# Seconds without a packet, and of packets without a frame, after which a stream has ended. Without lost packets there is a
# frame within two groups of pictures, which last 10 s at most.
SILENCE, NO_FRAME = TIMEOUT[1], 20.0


class PacketReader(threading.Thread):
    """Reads a live stream without waiting for the decoder, and records when each packet arrived.

    `close` closes the container too. The packet's `opaque` is its `PacketStamp`, which libav passes on to the frame.
    `timeline` moves its times after that.
    """

    def __init__(
        self, container: Any, packets: SharedDemuxer, undelayed: ParserBypass, timeline: Timeline[Packet]
    ) -> None:
        super().__init__(name="packets", daemon=True)
        self._container, self._undelayed, self._timeline = container, undelayed, timeline
        self._demuxer = Demuxer(packets, live=True)
        self._timed = not container.format.flags & _NO_TIMES
        self.stored = container.format.name.startswith(_STORED)
        self._clock = ArrivalClock()
        self._queue = LivePacketQueue(self._clock, stored=self.stored)
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._fruitless: float | None = None  # when the first packet after the last frame was taken

    @property
    def skipped(self) -> int:
        """Packets that were dropped undecoded, to catch up with the stream."""
        return self._queue.skipped

    @property
    def waiting(self) -> int:
        """Packets that have arrived and wait for the decoder."""
        return len(self._queue)

    @property
    def gives_frames(self) -> bool:
        """Whether no packet was taken since the last frame."""
        return self._fruitless is None

    @property
    def failure(self) -> Exception | None:
        """What ended the stream, once `take` has given None."""
        return self._demuxer.failure

    def due(self, image: Any) -> float:
        """When a frame would have arrived without any backlog, by `time.monotonic()`."""
        stamp, self._fruitless = image.opaque, None
        with self._changed:
            return time.monotonic() if stamp is None else self._clock.due(stamp)

    def take(self) -> tuple[Packet | None, bool]:
        """The next packet to decode, and whether others before it were dropped; None at the end. Waits for it.

        A stream whose packets have stopped, or give no frame any more, has ended. libav's own timeout does not see a sender
        that goes on with another stream, such as under other PIDs of MPEG-TS.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._queue) or self._ended or self._closed, SILENCE):
                self._demuxer.failure = av.error.TimeoutError(errno.ETIMEDOUT, "no packet of the video")
            elif self._fruitless and time.monotonic() - self._fruitless > NO_FRAME and not self._ended:
                self._demuxer.failure = av.error.InvalidDataError(errno.EINVAL, "no frame")
                return None, False
            found = self._queue.take(time.monotonic()) if not self._closed else None
            if found and self._fruitless is None:
                self._fruitless = time.monotonic()
            self._changed.notify_all()
        return (found[0].packet, found[1]) if found else (None, False)

    def close(self) -> None:
        """Stop reading. A read that hangs ends by libav's timeout, and then closes the container."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            ended = self._ended
        if ended:
            self._container.close()
        self.join(_CLOSING)

    def run(self) -> None:
        """Read packets until the end or `close`."""
        try:
            while not self._closed and (packet := self._read()) is not None:
                self._put(*packet)
        except Exception as error:  # raised by the consumer
            self._demuxer.failure = error
        with self._changed:
            self._ended, closed = True, self._closed
            self._changed.notify_all()
        if closed:
            self._container.close()

    def _read(self) -> tuple[Packet, float, bool] | None:
        start = time.monotonic()
        packet = self._demuxer.next()
        now = time.monotonic()
        return None if packet is None else (packet, now, now - start > _WAITED)

    def _put(self, packet: Packet, now: float, waited: bool) -> None:
        bare = self._undelayed.is_on  # without the parser, key frames are not marked
        self._undelayed.look(packet)
        key = packet.is_keyframe or (bare and has_key(bytes(packet)))
        media, order = (_seconds(packet, time_) if self._timed else None for time_ in (packet.pts, packet.dts))
        with self._changed:
            packet.opaque = stamp = self._clock.stamp(media, order, now, waited=waited)
            self._timeline.feed(packet)
            self._queue.put(Arrived(packet, stamp, packet.size, key))
            self._changed.notify_all()
            while self.stored and self._queue.full and not self._closed:
                self._changed.wait(_TICK)


def _seconds(packet: Packet, time_: int | None) -> float | None:
    return None if time_ is None else float(time_ * packet.time_base)
