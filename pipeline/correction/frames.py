"""The frames that can be held for correction: those of a file, at any position, or the newest ones of a live stream."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from cliprl.engines import UsageError
from cliprl.pipeline.core.frame import Frame
from cliprl.pipeline.core.interfaces import Source
from cliprl.pipeline.live.broadcast import Broadcast, DisplayedFrame
from cliprl.pipeline.view.privacy_guard import LEAVE, red_share

# Frames after a held one of a live stream that are kept, and seconds to wait for one of them.
FOLLOWING, _WAIT = 10, 5.0
# Times of frames are rounded: two within this many seconds are one.
_TOLERANCE = 0.0005
_OUTSIDE = "the endoscope is outside the body: its image can't be corrected"


@dataclass(frozen=True, slots=True, eq=False)
class HeldFrame:
    """A frame, and its position: seconds from the start of the file, or of the live stream's display."""

    frame: Frame
    seconds: float


class FrameSequence(Protocol):
    """The frames around a held one."""

    @property
    def kept_bytes(self) -> int:
        """The bytes that it keeps in memory at most."""
        ...

    def following(self, held: HeldFrame) -> Iterator[HeldFrame]:
        """Iterate over the frames after `held`."""
        ...

    def previous(self, held: HeldFrame) -> HeldFrame | None:
        """Return the frame before `held`; None if there is none."""
        ...


class FileFrames:
    """The frames of a file that `open_at` opens at the last key frame before a position in seconds.

    guard: frames from outside the body are refused with UsageError.
    """

    kept_bytes = 0

    def __init__(self, open_at: Callable[[float], Source], *, guard: bool = False) -> None:
        self._open_at, self._guard = open_at, guard

    def at(self, seconds: float) -> HeldFrame:
        """Return the frame at `seconds`. Raises UsageError if there is none."""
        for held in self._read(seconds):
            if held.seconds >= seconds - _TOLERANCE:
                return self._checked(held)
        raise UsageError(f"the file has no frame at {seconds:g} s: choose an earlier one")

    def following(self, held: HeldFrame) -> Iterator[HeldFrame]:
        """Iterate over the frames after `held`."""
        return (self._checked(one) for one in self._read(held.seconds) if one.seconds > held.seconds + _TOLERANCE)

    def previous(self, held: HeldFrame) -> HeldFrame | None:
        """Return the frame before `held`; None for the first one."""
        last = None
        for one in self._read(max(held.seconds - 2 * _TOLERANCE, 0.0)):
            if one.seconds >= held.seconds - _TOLERANCE:
                break
            last = one
        return None if last is None else self._checked(last)

    def _checked(self, held: HeldFrame) -> HeldFrame:
        share = red_share(held.frame) if self._guard else None
        if share is not None and share < LEAVE:
            raise UsageError(f"the frame at {held.seconds:.2f} s is from outside the body and is not shared")
        return held

    def _read(self, start: float) -> Iterator[HeldFrame]:
        source = self._open_at(start)
        with source:
            first: int | None = None
            while (frame := source.read()) is not None:
                first = frame.pts if first is None else first
                yield HeldFrame(frame, source.origin + float((frame.pts - first) * frame.time_base))


class LiveFrames:
    """The newest frame of a live stream when it was made, and the next few. Frames are those that may be shared."""

    def __init__(self, broadcast: Broadcast) -> None:
        newest = broadcast.newest
        if newest is None or not newest.from_camera:
            raise UsageError("there is no camera image to correct: wait for one")
        if newest.status.guarded:
            raise UsageError(_OUTSIDE)
        self._changed = threading.Condition()
        self.first = _live(newest.shared_raw)
        self._held, self._complete = [self.first], False
        self.kept_bytes = (1 + FOLLOWING) * frame_bytes(self.first.frame)
        arguments = weakref.ref(self), broadcast, newest.index
        threading.Thread(target=_collect, args=arguments, name="frames after a held one", daemon=True).start()

    def add(self, shown: DisplayedFrame | None) -> bool:
        """Add the next displayed frame if a camera has taken it. Return whether more are needed; None is the end."""
        with self._changed:
            if shown is None or shown.status.guarded:
                self._complete = True
            elif shown.from_camera:
                self._held.append(_live(shown.shared_raw))
                self._complete = len(self._held) > FOLLOWING
            self._changed.notify_all()
            return not self._complete

    def following(self, held: HeldFrame) -> Iterator[HeldFrame]:
        """Iterate over the frames after `held`; waits for one that is still to come."""
        number = self._held.index(held) + 1
        while True:
            with self._changed:
                self._changed.wait_for(lambda n=number: self._complete or len(self._held) > n, _WAIT)  # type: ignore[misc]
                if len(self._held) <= number:
                    return
            yield self._held[number]
            number += 1

    def previous(self, held: HeldFrame) -> HeldFrame | None:
        """Return the frame before `held`; None for the one that was held first."""
        number = self._held.index(held)
        return self._held[number - 1] if number else None


def _collect(sequence: weakref.ref[LiveFrames], broadcast: Broadcast, index: int) -> None:
    """Add the frames after `index` to a sequence for as long as it is held, so that a stalled stream keeps no threads."""
    needed = True
    while needed:
        shown = broadcast.wait_newer(index, _WAIT)
        frames = sequence()
        if shown is not None or broadcast.closed:
            index = index if shown is None else shown.index
            needed = frames is not None and frames.add(shown)
        else:
            needed = frames is not None
        del frames


def frame_bytes(frame: Frame) -> int:
    """Return the bytes of the planes of a frame."""
    return frame.luma.nbytes + frame.chroma.nbytes


def _live(frame: Frame) -> HeldFrame:
    return HeldFrame(replace(frame, times={}, durations={}, threads={}), frame.seconds)


def displayed_frame(
    broadcast: Broadcast, open_at: Callable[[float], Source], *, guard: bool
) -> tuple[FrameSequence, HeldFrame]:
    """Return the frame that is displayed now, with the frames around it.

    `open_at` opens the file that is played. Raises UsageError if there is no frame that may be shared.
    """
    newest = broadcast.newest
    if newest is not None and newest.raw.position is not None:
        if newest.status.guarded:
            raise UsageError(_OUTSIDE)
        file = FileFrames(open_at, guard=guard)
        return file, file.at(newest.raw.position)
    live = LiveFrames(broadcast)
    return live, live.first
