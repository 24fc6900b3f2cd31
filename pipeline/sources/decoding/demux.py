"""Reads the packets of an input through damage: video for the decoder, audio for the outputs; of a live input on a thread."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from fractions import Fraction
from typing import Any

import av
from av.format import Flags

from cliprl.pipeline.core.passthrough import Passthrough
from cliprl.pipeline.sources.decoding.arrival_clock import ArrivalClock
from cliprl.pipeline.sources.decoding.low_latency import ParserBypass, has_key
from cliprl.pipeline.sources.decoding.packet_queue import Arrived, LivePacketQueue
from cliprl.pipeline.sources.decoding.timeline import Timeline

Packet = Any  # PyAV's, whose class is generic in its stubs but not at run time
# Seconds of video by which audio may be late in a file, and the maximum number of packets read ahead for it.
_SKEW, _MOST_AHEAD = 1, 100


class SharedDemuxer:
    """Reads the packets of one video stream, and adds those of the audio tracks to `passthrough`.

    Their times are those of `timeline`, or of the container where it is None.
    With `read_ahead`, packets are read up to a second ahead until the audio has caught up with the video, so that an output
    has it in time. An input whose data come slowly (a pipe) must not be read ahead.
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        passthrough: Passthrough,
        timeline: Timeline[Packet] | None = None,
        *,
        read_ahead: bool,
    ) -> None:
        self._container, self._video, self._passthrough = container, stream, passthrough
        self._heard = {track.index: Fraction(-1) for track in passthrough.tracks}
        self._streams = [stream, *(s for s in container.streams if s.index in self._heard)]
        self._packets = container.demux(*self._streams)
        self._timeline = timeline
        self._read_ahead = read_ahead and bool(passthrough.tracks)
        self._ready: deque[Packet | Exception] = deque()
        self._seen = Fraction(-1)
        self._ended = False

    def read(self) -> Packet | None:
        """The next packet of the video stream, None at the end. Raises libav's error where there is one; one may read on."""
        while not self._ended and (not self._ready or self._is_behind()):
            self._fetch()
        if not self._ready:
            return None
        item = self._ready.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    def _is_behind(self) -> bool:
        """Whether audio for the next packet may still follow within the read-ahead."""
        first = self._ready[0]
        if not self._read_ahead or isinstance(first, Exception) or len(self._ready) >= _MOST_AHEAD:
            return False
        time = _time(first)
        return time is not None and min(self._heard.values()) <= time and self._seen - time < _SKEW

    def _fetch(self) -> None:
        try:
            packet: Packet | None = next(self._packets, None)
        except IndexError:  # PyAV's end of an input in which streams appeared that it does not list
            packet = None
        except av.FFmpegError as error:
            self._ready.append(error)
            self._packets = self._container.demux(*self._streams)
            return
        self._ended = packet is None
        for placed in self._placed(packet):
            self._hand_over(placed)

    def _placed(self, packet: Packet | None) -> list[Packet]:
        """The packets whose times are known now that `packet` was read; None: the end."""
        if self._timeline is None:
            return [] if packet is None else [packet]
        return self._timeline.finish() if packet is None else self._timeline.feed(packet)

    def _hand_over(self, packet: Packet) -> None:
        time = _time(packet)
        if packet.stream_index == self._video.index:
            self._ready.append(packet)
            self._seen = self._seen if time is None else max(self._seen, time)
        elif packet.size:
            self._heard[packet.stream_index] = self._seen if time is None else time
            self._passthrough.add(packet)


def _time(packet: Packet) -> Fraction | None:
    """When a packet is decoded, in seconds; None if it has no time."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return None if ticks is None else ticks * packet.time_base


# A demuxer that fails this often without a packet in between is given up.
_MOST_READ_ERRORS = 32
_GONE = (TimeoutError, ConnectionError, av.error.ExitError)
# A read that takes longer than this, in seconds, has waited for the sender.
_WAITED = 0.002
# Demuxers of streams that come in stored parts, of which several may lie ready.
_STORED = ("hls", "dash")
_NO_TIMES: Any = Flags.no_timestamps.value
# How long closing waits for a read that is under way, and a reader for room, in seconds.
_PATIENCE, _TICK = 1.0, 0.05


class Demuxer:
    """Reads the packets of one stream. `failure` is what ended them; `lost` counts errors that did, `empty` empty packets.

    `cut_off`: they ended with an input/output error, as after a connection that was closed early.
    """

    def __init__(self, packets: SharedDemuxer, *, live: bool) -> None:
        self._packets, self._live = packets, live
        self.failure: Exception | None = None
        self.lost = self.empty = 0
        self.cut_off = False

    def next(self) -> Packet | None:
        """The next packet; None at the end, and where there is a `failure`."""
        errors = 0
        while errors < _MOST_READ_ERRORS:
            try:
                packet = self._packets.read()
            except av.error.FFmpegError as error:
                if isinstance(error, _GONE) or (self._live and not isinstance(error, av.error.InvalidDataError)):
                    self.failure = error
                    return None
                errors += 1
                self.cut_off = error.errno == errno.EIO
                continue
            self.cut_off = self.cut_off and packet is None
            if packet is None or packet.size:  # one without bytes would end the decoder
                return packet
            self.empty += packet.pos is not None
        self.lost += 1
        return None


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

    @property
    def skipped(self) -> int:
        """Packets that were dropped undecoded, to catch up with the stream."""
        return self._queue.skipped

    @property
    def waiting(self) -> int:
        """Packets that have arrived and wait for the decoder."""
        return len(self._queue)

    @property
    def failure(self) -> Exception | None:
        """What ended the stream, once `take` has given None."""
        return self._demuxer.failure

    def due(self, image: Any) -> float:
        """When a frame would have arrived without any backlog, by `time.monotonic()`."""
        stamp = image.opaque
        with self._changed:
            return time.monotonic() if stamp is None else self._clock.due(stamp)

    def take(self) -> tuple[Packet | None, bool]:
        """The next packet to decode, and whether others before it were dropped; None at the end. Waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._queue) or self._ended or self._closed)
            found = self._queue.take(time.monotonic()) if not self._closed else None
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
        self.join(_PATIENCE)

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
