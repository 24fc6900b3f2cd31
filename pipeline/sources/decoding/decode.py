"""Decodes packets into images through damage, with their presentation times: one bad packet does not end a video."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import av

from cliprl.pipeline.core.thread_policy import codec_threads
from cliprl.pipeline.sources.decoding.codec_change import CodecWatch, successor
from cliprl.pipeline.sources.decoding.demux import Demuxer, Packet, SharedDemuxer
from cliprl.pipeline.sources.decoding.h264_headers import h264_reordering
from cliprl.pipeline.sources.decoding.low_latency import LiveDamage, ParserBypass, live_threads
from cliprl.pipeline.sources.decoding.packet_queue import PacketReader
from cliprl.pipeline.sources.decoding.timeline import WITHOUT_PRESENTATION_TIMES, Timeline
from cliprl.pipeline.sources.decoding.undecodable import EncryptedPacketError

DEFAULT_RATE = Fraction(25)
# Up to this many consecutive frames without a later time share the period of one; more mean a clock that has stopped.
_CROWDED = 2
# Frames by which a codec may reorder at most (H.264 and H.265).
_MOST_REORDERED = 16


class PresentationClock:
    """Assigns increasing times to frames. Times that increase already are kept."""

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self._rate = rate or DEFAULT_RATE
        self._step = 1 / (self._rate * time_base)
        self._last: int | None = None
        self._due: float | None = None
        self._anchor = self._since = self._stuck = 0
        self._is_timed = True  # whether the last frame came with a time
        self.notes: dict[str, str] = {}

    def stamp(self, pts: int | None, duration: int, index: int) -> tuple[int, int]:
        """Time and duration of frame `index`, in units of the time base: those given, if `pts` is later than the last."""
        if not (is_timed := pts is not None):
            pts, duration = self._counted(index), round(self._step)
        else:
            if self._due is not None and pts > self._due:
                self._note("leap", f"times leap at frame {index}: frames may be missing in the file")
            pts = self._ordered(pts, index)
            self._anchor, self._since = pts, 0
        self._last, self._due, self._is_timed = pts, pts + 1.5 * duration if duration else None, is_timed
        return pts, duration

    def _ordered(self, pts: int, index: int) -> int:
        """`pts` where it lies behind the last time. Else a time before the next frame is due, or, of a clock that stands
        still, at the rate."""
        if self._last is None or pts > self._last:
            self._stuck = 0
            return pts
        if self._is_timed:
            self._note(
                "back", f"times repeat or go back from frame {index} on: such frames are moved after the frame before"
            )
        self._stuck += 1
        step = self._step / 2**self._stuck if self._stuck <= _CROWDED else self._step
        return self._last + max(int(step), 1)

    def _counted(self, index: int) -> int:
        if self._last is None:
            return 0
        others = f"frame {index} has no time: it and others like it follow the frame before"
        # in RTSP the first alone may lack one
        what = "the file has no times: frames are timed" if index == 1 else others
        self._note("none", f"{what} at {float(self._rate):g} FPS")
        self._since += 1
        return max(self._anchor + round(self._since * self._step), self._last + 1)

    def _note(self, key: str, text: str) -> None:
        self.notes.setdefault(key, text)


class DisplayOrder:
    """Presentation times of a stream whose packets have only the times of decoding, such as H.264 with B-frames in AVI.

    Decoders give frames in the order of display. An encoder that reorders frames by up to d places delays the times of decoding
    by d frames. As long as the times of the packets never go back, which those of a stream with B-frames must, frame n takes the
    time of packet n + d. `delay`: d, where it is known; else it is the largest reordering so far, and at least one. Until a frame
    is out of order, times may be those of presentation, except in a container `format` where these are guesses of libav.
    """

    def __init__(self, *, delay: int = 0, format: str = "") -> None:
        self._guessed, self._is_decoding_order = format in WITHOUT_PRESENTATION_TIMES, True
        self._stated = max(delay, 1)
        self._start = self._stated if format == "asf" else 0  # an encoder delays the audio in ASF, too
        self._delay = self._stated if self._guessed else 0
        self._first: list[int] = []  # times of the first packets
        self._free: list[int] = []  # times that no frame took yet, in order
        self._inside: list[int] = []  # packets that gave no frame yet, by their own time, in order

    def sent(self, packet: Any) -> None:
        """A packet goes to the decoder. One with a time of decoding alone takes that as its own."""
        packet.pts = packet.dts if self._guessed or packet.pts is None else packet.pts
        if packet.pts is None or packet.is_discard or not self._is_decoding_order:
            return
        self._is_decoding_order = not self._free or packet.pts >= self._free[-1]
        self._first = [*self._first, packet.pts][: _MOST_REORDERED + 1]
        self._free.append(packet.pts)
        self._inside.append(packet.pts)

    def restart(self) -> None:
        """The decoder was emptied: packets that gave no frame will give none."""
        self._free, self._inside = [], []

    def time(self, own: int | None, *, is_key: bool, reorders: bool) -> int | None:
        """The time of the next frame; `own` is that of its packet. `reorders`: the decoder changes the order of frames."""
        if not self._is_decoding_order or own is None or own not in self._inside:
            return own
        place = self._inside.index(own)
        if is_key:  # all packets before a key frame have come out by now, or never will
            del self._inside[:place], self._free[:place]
            place = 0
        if reorders:
            self._delay = max(self._delay, place and max(place, self._stated))
            delay = min(self._delay, len(self._first) - 1)
            beyond = max(delay + 1 - len(self._free), 0)  # the end, of which no further packets tell
            step = min(b - a for a, b in pairwise(self._first)) if beyond else 0
            late = self._first[delay] - self._first[min(self._start, delay)]
            own = self._free[delay - beyond] + beyond * step - late
        del self._inside[place], self._free[0]
        return own


# AV_CODEC_FLAG_UNALIGNED, _OUTPUT_CORRUPT, _COPY_OPAQUE and _LOW_DELAY of libavcodec/avcodec.h. Without the first, columns that
# a stream cuts off at its left stay, up to the next multiple of 64 bytes.
_UNALIGNED, _OUTPUT_CORRUPT, _COPY_OPAQUE, _LOW_DELAY = 1, 1 << 3, 1 << 7, 1 << 19


class Decoded(NamedTuple):
    """A frame, its presentation time, and whether it was decoded with errors or comes right after a lost one.

    In a live stream also whether it may refer to such a frame.
    """

    image: av.VideoFrame
    pts: int | None
    damaged: bool


class PacketDecoder:
    """Decodes the video stream of a container, whose packets `packets` reads, from its start to its end.

    `corrupt` counts frames decoded with errors, `lost` packets that gave none because of an error; `images` are those that
    came out, and those that the container marks to be discarded. A live stream decodes without the delay of frame threads,
    and starts at its first key frame instead of with gray frames. Its packets are read on a thread (`reader`), and those for
    which there is no time are left out. `wrap` makes what decodes in the place of libav's context. `context` is the decoder
    in use; `notes` are for the user.
    """

    def __init__(
        self,
        container: Any,
        stream: Any,
        packets: SharedDemuxer,
        timeline: Timeline[Packet],
        *,
        live: bool = False,
        wrap: Callable[[Any], Any] | None = None,
    ) -> None:
        self.context = stream.codec_context
        self.context.thread_type = "SLICE" if live else "AUTO"
        self.context.thread_count = (
            live_threads(self.context.name) if live else codec_threads(hardware=self.context.is_hwaccel)
        )
        self.context.flags |= _UNALIGNED | (_LOW_DELAY | _COPY_OPAQUE if live else _OUTPUT_CORRUPT)
        self.context = wrap(self.context) if wrap else self.context
        self.notes: list[str] = self.context.notes if wrap else []
        self._live = live
        may_change = not self.context.is_hwaccel and CodecWatch.fits(container, self.context.name)
        self._watch = CodecWatch(self.context.name, fixed=wrap is not None) if may_change else None
        self._undelayed = ParserBypass(container, self.context)
        self._order = DisplayOrder(delay=h264_reordering(stream.codec_context), format=container.format.name)
        self._demuxer = Demuxer(packets, live=live)
        self.reader = PacketReader(container, packets, self._undelayed, timeline) if live else None
        if self.reader:
            self.reader.start()
        self._next: Packet | None = None
        self._ready: deque[av.VideoFrame] = deque()
        self._suspect: set[int] = set()
        # Segments arrive whole or not at all. Counters of packets that begin anew in each are no loss.
        self._may_lose, self._after_loss, self._drained = container.format.name != "hls", False, False
        self._damage = LiveDamage(stream.codec_context)
        self._failure: Exception | None = None
        self.corrupt = self.lost = self.packets = self.images = 0

    def close(self) -> None:
        """End the decoder that was made by `wrap`."""
        self.context.close()

    @property
    def cut_off(self) -> bool:
        """Whether a stored stream ended with an input/output error."""
        return self._demuxer.cut_off

    def read(self) -> Decoded | None:
        """The next frame in presentation order, None at the end.

        Where a live stream or a connection breaks, the frames already received come first, then libav's error is raised.
        Raises EncryptedPacketError for a packet that could be decoded to nothing but noise.
        """
        while not self._ready and not self._drained:
            packet = self._next_packet()
            if packet is not None:
                self._count(packet)
            self._decode(packet)
            self._drained = packet is None
            if self._drained and (self.lost or self.corrupt):  # packets without a frame were lost to errors too
                self.lost = max(self.lost, self.packets - self.images)
        if self._ready:
            return self._judge(self._ready.popleft())
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        return None

    def _next_packet(self) -> Packet | None:
        """The next packet. A last one that is cut off is left out where it would take frames yet to be put in order with it."""
        if self.reader is not None:
            return self._received(self.reader)
        packet, self._next = self._next or self._demux(), None
        if packet is not None and packet.is_corrupt and self.context.has_b_frames:
            self._next = self._demux()
            if self._next is None:
                self._count(packet)
                self.lost += 1
                return None
        return packet

    def _received(self, reader: PacketReader) -> Packet | None:
        """The next packet of a live stream. After dropped packets the decoder is reset."""
        packet, broken = reader.take()
        if broken:
            self.context.flush_buffers()
            self._damage.restart()
            self._order.restart()
        self._failure = reader.failure if packet is None else None
        return packet

    def _demux(self) -> Packet | None:
        packet = self._demuxer.next()
        if packet is None:
            self.packets += self._demuxer.empty
            self.lost += self._demuxer.lost
            self._demuxer.empty = self._demuxer.lost = 0
            self._failure = self._demuxer.failure
        return packet

    def _count(self, packet: Packet) -> None:
        self.packets += 1
        if packet.has_sidedata("encryption_info"):
            raise EncryptedPacketError
        self._order.sent(packet)
        is_lost = self._live and self._damage.is_after_loss(packet, self.context.name)
        if packet.pts is not None and (is_lost or (packet.is_corrupt and self._may_lose)):
            self._suspect.add(packet.pts)

    def _decode(self, packet: Packet | None) -> None:
        """Decode a packet, from a change of the codec on with another decoder: first come the frames that the last one holds."""
        if packet is not None and self._watch and (codec := self._watch.change(packet)):
            self._send(None)
            if self.images and not self.notes:
                self.notes.append(f"the codec changes at frame {self.images}, to {codec}")
            self._undelayed.end()
            self.context = successor(self.context, codec)
            self.context.thread_count = live_threads(codec) if self._live else self.context.thread_count
        self._send(packet)

    def _send(self, packet: Packet | None) -> None:
        try:
            found = self.context.decode(packet)
        except (av.error.FFmpegError, ValueError):
            self.lost += 1
            self._after_loss = True
            return
        self.images += len(found) + (packet is not None and packet.is_discard)
        if any(image.interlaced_frame for image in found):
            self._undelayed.end()
        self._ready.extend(found)

    def _judge(self, image: av.VideoFrame) -> Decoded:
        corrupt = image.is_corrupt or image.pts in self._suspect
        self._suspect.discard(image.pts)
        damaged, self._after_loss = corrupt or self._after_loss, False
        if self._live:
            corrupt = damaged = self._damage.spreads(is_key=image.key_frame, damaged=damaged)
        self.corrupt += corrupt
        pts = self._order.time(image.pts, is_key=image.key_frame, reorders=self.context.has_b_frames > 0)
        return Decoded(image, pts, damaged)
