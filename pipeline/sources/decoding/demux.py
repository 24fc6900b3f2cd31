"""Reads the packets of an input through damage: video for the decoder, audio for the outputs."""

from __future__ import annotations

import errno
from collections import deque
from fractions import Fraction
from typing import Any

import av

from cliprl.pipeline.core.passthrough import Passthrough
from cliprl.pipeline.sources.decoding.timeline import Timeline, decode_time

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
        self._ready: deque[tuple[Packet | Exception, Fraction | None]] = deque()
        self._seen = Fraction(-1)
        self._ended = False
        self.position = 0  # bytes of the input up to the latest packet

    def read(self) -> Packet | None:
        """The next packet of the video stream, None at the end. Raises libav's error where there is one; one may read on."""
        while not self._ended and (not self._ready or self._is_behind()):
            self._fetch()
        if not self._ready:
            return None
        item, _ = self._ready.popleft()
        if isinstance(item, Exception):
            raise item
        return item

    def _is_behind(self) -> bool:
        """Whether audio for the next packet may still follow within the read-ahead."""
        first, time = self._ready[0]
        if not self._read_ahead or isinstance(first, Exception) or len(self._ready) >= _MOST_AHEAD:
            return False
        return time is not None and min(self._heard.values()) <= time and self._seen - time < _SKEW

    def _fetch(self) -> None:
        try:
            packet: Packet | None = next(self._packets, None)
        except IndexError:  # PyAV's end of an input in which streams appeared that it does not list
            packet = None
        except av.FFmpegError as error:
            self._ready.append((error, None))
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
        time = decode_time(packet)
        self.position = max(self.position, (packet.pos or 0) + packet.size)
        if packet.stream_index == self._video.index:
            self._ready.append((packet, time))
            self._seen = self._seen if time is None else max(self._seen, time)
        elif packet.size:
            self._heard[packet.stream_index] = self._seen if time is None else time
            self._passthrough.add(packet)


# A demuxer that fails this often without a packet in between is given up.
_MOST_READ_ERRORS = 32
_GONE = (TimeoutError, ConnectionError, av.error.ExitError)


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
