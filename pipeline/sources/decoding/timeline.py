"""A continuous timeline for all streams of a container, through jumps of its clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import Any, Generic, Protocol, TypeVar

import av

# A stream whose time goes back by more than this many seconds, or by half a frame, has restarted its clock. Less is a
# single wrong time. Where packets have no times of decoding, those of B-frames go back, at most to before the last frame that
# came early.
_BACK, _BACK_WITHOUT_DTS, _LEAST_STEP = Fraction(1, 10), Fraction(1), Fraction(-1, 10)
# Time that leaps ahead of all streams by more is a jump of the clock. MPEG-TS and its like may restart at any packet,
# so that little is enough there; in other containers a long gap is more likely meant.
_GAP, _GAP_WHERE_CONTINUOUS = Fraction(10), Fraction(600)
# Audio whose clock jumps is held back until that of the video jumps too, for at most this many seconds of video.
_PATIENCE = Fraction(1)
_MOST_WAITING = 2000
# The clocks of MPEG-TS and MPEG-PS count 33 bits at 90 kHz and then restart at zero.
_WRAP = Fraction(1 << 33, 90_000)
# Files that start later than this are moved to start at zero.
LATEST_START = Fraction(2)
# Containers whose packets have times of decoding only, to which libav adds guesses.
WITHOUT_PRESENTATION_TIMES = ("avi", "asf")


class TimedPacket(Protocol):
    """The part of a packet that holds its time; times in units of `time_base` seconds, a duration of None or 0 is unknown.

    is_discard: it is decoded and not shown, such as what comes between a key frame and the first frame of an edit.
    """

    pts: int | None
    dts: int | None
    duration: int | None
    time_base: Fraction
    stream_index: int
    is_discard: bool


P = TypeVar("P", bound=TimedPacket)


@dataclass(slots=True)
class _Track:
    """Where a stream other than the video is. `extra` seconds are its own, where its clock jumped and the video's did not."""

    clock: int = 0
    last: Fraction | None = None  # as the container has it
    placed: Fraction | None = None
    end: Fraction = Fraction(0)
    extra: Fraction = Fraction(0)


class Timeline(Generic[P]):
    """Moves the times of packets, in place, so that a clock that restarts, wraps or jumps makes one continuous timeline.

    The video stream `video` decides: where its clock jumps, its next packet begins where the last one ended, and the other
    streams follow it, each at the packet that belongs to the new clock. `start` is the time of the container that becomes
    zero, in seconds, None to leave the start as it is. `gap` seconds without any packet are a jump. `guessed`: the container
    has no times of decoding, and those of the packets are guesses. `live`: that of the first packet may be a guess, as in RTP
    that is joined in its middle; that the second lies before it is no jump. `jumps` lists the number of the video packet after
    each jump and by how many seconds the clock jumped; `moved` is what became zero.
    """

    def __init__(
        self,
        video: int,
        start: Fraction | None = None,
        gap: Fraction = _GAP,
        *,
        guessed: bool = False,
        live: bool = False,
    ) -> None:
        self.jumps: list[tuple[int, Fraction]] = []
        self.moved = Fraction(0)
        self._video, self._start, self._gap = video, start, gap
        self._offsets: list[Fraction] = []
        self._last: Fraction | None = None
        self._back = _BACK
        self._lead, self._is_dated = _BACK_WITHOUT_DTS, False
        self._guessed, self._live = guessed, live
        self._length = Fraction(0)
        self._end = Fraction(0)
        self._count = 0
        self._tracks: dict[int, _Track] = {}
        self._waiting: deque[tuple[P, Fraction]] = deque()
        self._waits_since = Fraction(0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was changed, for the user: a line for the start, one for the first jump."""
        notes = []
        if self.moved:
            notes.append(f"the times of the file start at {_words(self.moved)}: they are moved to start at zero")
        if self.jumps:
            frame, seconds = self.jumps[0]
            what = "goes back" if seconds < 0 else "jumps ahead"
            notes.append(
                f"the clock of the file {what} by {_words(abs(seconds))} at frame {frame}: what follows, audio too, is moved "
                "to where the part before ended"
            )
        return tuple(notes)

    def feed(self, packet: P) -> list[P]:
        """Take the next packet of any stream. Return those whose times are final now, in the order they came."""
        time = decode_time(packet)
        if time is None:
            return [packet]
        if not self._offsets:
            self._begin(time)
        if packet.stream_index == self._video:
            if packet.is_discard:  # before an edit, whose first frame has its own time: no jump of the clock
                self._last = None
                _move(packet, self._offsets[-1])
            else:
                self._follow(packet, time)
            return [packet, *self._settled(force=False)]
        self._waiting.append((packet, time))
        if len(self._waiting) == 1:
            self._waits_since = self._end
        return list(self._settled(force=len(self._waiting) > _MOST_WAITING))

    def finish(self) -> list[P]:
        """Return the packets that still wait, at the end of the container."""
        return list(self._settled(force=True))

    def _begin(self, first: Fraction) -> None:
        """Choose the zero of the timeline. A start that does not fit the first packet is ignored."""
        start = self._start
        if start is not None and abs(start - first) > self._gap:
            start = first
        self.moved = start if start is not None and start > LATEST_START else Fraction(0)
        self._offsets.append(-self.moved)

    def _follow(self, packet: P, time: Fraction) -> None:
        """Place a packet of the video, after a jump where there is one."""
        if self._last is not None:
            self._check_jump(packet, time)
        is_ordered = packet.dts is not None and not self._guessed
        self._length = _length(packet)
        if packet.dts is None:
            self._back = self._lead = self._lead if self._last is None else max(self._lead, time - self._last)
        else:
            self._back = min(self._length / 2 or _BACK, _BACK) if is_ordered else _BACK_WITHOUT_DTS
            is_ordered = is_ordered or not self._is_dated  # nor do its times compare with those of presentation before
        self._is_dated = packet.dts is not None
        end = _sum(_presented(packet, time), self._offsets[-1]) + self._length
        _move(packet, self._offsets[-1])
        self._end = max(self._end, end) if self._last is not None else end
        self._last = time if self._last is None or is_ordered else max(self._last, time)
        self._count += 1

    def _check_jump(self, packet: P, time: Fraction) -> None:
        assert self._last is not None
        newest = len(self._offsets) - 1
        others = (_sum(t.last, t.extra) for t in self._tracks.values() if t.clock == newest and t.last is not None)
        step, ahead = time - self._last, time - max(self._last + self._length, *others, self._last)
        back = self._back if packet.dts is not None else self._lead
        if step >= -back and ahead <= self._gap:
            return
        self._last = None
        if -back <= step + _WRAP <= self._gap:
            self._offsets.append(self._offsets[-1] + _WRAP)
        else:
            if not (self._live and self._count == 1 and step < 0):
                # libav counts a clock of 33 bits that goes back as one that wraps.
                self.jumps.append((self._count, step - _WRAP if step > _WRAP / 2 else step))
            self._offsets.append(self._end - _presented(packet, time))

    def _settled(self, *, force: bool) -> Iterator[P]:
        """The waiting packets that can be placed, in order, until one that can't."""
        while self._waiting:
            packet, time = self._waiting[0]
            patience_ends = force or (self._end is not self._waits_since and self._end - self._waits_since > _PATIENCE)
            placed = self._place(packet, time, alone=patience_ends)
            if placed is None:
                return
            self._waiting.popleft()
            self._waits_since = self._end if not patience_ends else self._waits_since
            if placed:
                yield packet

    def _place(self, packet: P, time: Fraction, *, alone: bool) -> bool | None:
        """Move a packet of another stream. None: it has to wait; False: what was placed covers it, and it is left out."""
        track = self._tracks.setdefault(packet.stream_index, _Track())
        clock = self._clock_of(track, time)
        if clock is None and not alone:
            return None
        if clock is None:  # this stream alone has jumped: it goes on where it ended
            clock = len(self._offsets) - 1
            track.extra = track.end - time - self._offsets[clock]
        elif clock != track.clock:
            track.extra = Fraction(0)
        offset = _sum(self._offsets[clock], track.extra)
        placed, jumped = _sum(time, offset), clock != track.clock
        track.clock, track.last = clock, time
        if track.placed is not None and (placed < track.placed or (jumped and placed == track.placed)):
            return False
        _move(packet, offset)
        track.placed, track.end = placed, placed + _length(packet)
        return True

    def _clock_of(self, track: _Track, time: Fraction) -> int | None:
        """The clock, by its place in `_offsets`, that a time of a stream is of; None if none fits yet."""
        newest = len(self._offsets) - 1
        if track.clock == newest:
            step = Fraction(0) if track.last is None else time - track.last
            is_near = step <= self._gap or time + self._offsets[newest] + track.extra <= self._end + self._gap
            return newest if is_near and step >= _LEAST_STEP else None
        variants = range(track.clock, newest + 1)
        placed = {c: time + self._offsets[c] + (track.extra if c == track.clock else 0) for c in variants}
        fits = [c for c in variants if track.placed is None or placed[c] >= track.end - _PATIENCE]
        best = min(fits, key=lambda c: abs(placed[c] - self._end), default=None)
        return best if best is not None and abs(placed[best] - self._end) <= self._gap else None


def timeline_of(container: Any, stream: Any, *, live: bool) -> Timeline[Any]:
    """The timeline of an open container, for the video of `stream`. A live stream's start is left as it is."""
    start = None if live or container.start_time is None else Fraction(container.start_time, av.time_base)
    restarts = container.format.flags & av.format.Flags.ts_discont.value
    gap = _GAP if restarts and not live else _GAP_WHERE_CONTINUOUS
    guessed = container.format.name.startswith("matroska")
    return Timeline(stream.index, start, gap, guessed=guessed, live=live)


def _words(seconds: Fraction) -> str:
    return f"{float(seconds):.2f} s" if seconds < 60 else str(timedelta(seconds=round(seconds)))


def decode_time(packet: TimedPacket) -> Fraction | None:
    """Return when a packet is decoded, in seconds; None if it has no time."""
    ticks = packet.dts if packet.dts is not None else packet.pts
    return None if ticks is None else ticks * packet.time_base


def _sum(seconds: Fraction, more: Fraction) -> Fraction:
    """Add what is nearly always zero, in a tenth of the time of an addition."""
    return seconds + more if more else seconds


def _presented(packet: TimedPacket, time: Fraction) -> Fraction:
    return time if packet.pts is None else packet.pts * packet.time_base


def _length(packet: TimedPacket) -> Fraction:
    return (packet.duration or 0) * packet.time_base


def _move(packet: TimedPacket, seconds: Fraction) -> None:
    ticks = round(seconds / packet.time_base) if seconds else 0
    if ticks:
        packet.pts = None if packet.pts is None else packet.pts + ticks
        packet.dts = None if packet.dts is None else packet.dts + ticks
