"""Decoding of live frames: without libav's parser, which delays each until the next one begins; which ones are damaged."""

from __future__ import annotations

from typing import Any

from av.container import Flags, InputContainer

from cliprl.pipeline.sources.decoding.h264_headers import LossWatch

# libav's options for live inputs, and seconds to open one and to wait for each packet. With "nobuffer" libav would drop what it
# has read to analyze the stream: many senders begin with a key frame, and the next one may come 10 s later.
TIMEOUT = (10.0, 10.0)
QUICK = {"analyzeduration": "1000000"}
# Options for inputs whose packets hold whole frames: without the parser. RTP packets hold parts of one.
WITHOUT_PARSER = QUICK | {"fflags": "noparse"}
_NO_PARSE: Any = Flags.no_parse.value
# Frames after a damaged one that count as damaged at most: until a key frame, which some streams do not have.
_LONGEST_GROUP = 300
_START = b"\0\0\1"
# Units with a slice's header: a slice, partition A of one, a slice of a key frame (ITU-T H.264, table 7-1).
_SLICES = (1, 2, 5)
# Units with which decoding can begin: a slice of a key frame, the settings before one or before another entry point.
_KEYS = (5, 7)


def live_threads(codec: str) -> int:
    """Return the number of a live decoder's threads, 0 for as many as there are processors.

    With several, libav looks for no damage in frames of H.264 that have several slices: a wrong image would not be marked.
    """
    return 1 if codec == "h264" else 0


def slices_in(data: bytes) -> tuple[int, int]:
    """Slices in H.264 with start codes, and how many of them begin a frame (or a field).

    Such a one has the first macroblock, number 0, which is written as a single bit 1 (ITU-T H.264, 7.3.3 and 9.1).
    """
    slices, first, at = 0, 0, data.find(_START)
    while 0 <= at < len(data) - 4:
        is_slice = data[at + 3] & 0x1F in _SLICES
        slices += is_slice
        first += is_slice and data[at + 4] >= 0x80
        at = data.find(_START, at + 3)
    return slices, first


def has_key(data: bytes) -> bool:
    """Whether decoding H.264 with start codes can begin with this packet."""
    at = data.find(_START)
    while 0 <= at < len(data) - 3:
        if data[at + 3] & 0x1F in _KEYS:
            return True
        at = data.find(_START, at + 3)
    return False


class ParserBypass:
    """Packets of a stream that was opened without the parser (libav's `noparse`): H.264, one frame in each.

    What needs the parser is given back to it: other codecs, lengths in the place of start codes (which don't wait),
    more or less than a frame in a packet, and fields.
    """

    def __init__(self, container: InputContainer, context: Any) -> None:
        self._container = container
        if context.name != "h264" or (context.extradata or b"").startswith(b"\1"):
            self.end()

    @property
    def is_on(self) -> bool:
        """Whether packets come as they are."""
        return bool(self._container.flags & _NO_PARSE)

    def look(self, packet: Any) -> None:
        """Check that a packet holds one whole frame, or no slice."""
        if self.is_on:
            slices, first = slices_in(bytes(packet))
            if first != min(slices, 1):
                self.end()

    def end(self) -> None:
        """Return to the parser from the next packet on."""
        if self.is_on:
            self._container.flags &= ~_NO_PARSE


class LiveDamage:
    """Tells which frames of a live stream may be wrong after a loss: those up to the next key frame.

    The first frame of a connection leaves no others in doubt: what is missing before it is not lost.
    """

    def __init__(self, context: Any) -> None:
        self._losses = LossWatch(context.extradata if context.name == "h264" else None)
        self._left: int | None = None

    def restart(self) -> None:
        """The decoder was emptied: what comes next begins with a key frame, if there are any."""
        self._left = None
        self._losses.restart()

    def is_after_loss(self, packet: Any, codec: str) -> bool:
        """Return whether a packet for the decoder of a codec follows a lost one."""
        if codec != "h264":
            return False
        if packet.has_sidedata("new_extradata"):  # the sender has changed its settings
            self._losses = LossWatch(bytes(packet.get_sidedata("new_extradata")))
        return self._losses.is_after_loss(bytes(packet))

    def spreads(self, *, is_key: bool, damaged: bool) -> bool:
        """Return whether the next frame may be wrong; `damaged`: it is damaged itself."""
        left = 0 if is_key or self._left is None else max(self._left - 1, 0)
        self._left = _LONGEST_GROUP if damaged and self._left is not None else left
        return damaged or self._left > 0
