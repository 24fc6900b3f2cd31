"""The number of frames by which an H.264 encoder reorders, read from the settings in its stream."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# Profiles whose settings also describe the chroma format (ITU-T H.264, 7.3.2.1.1).
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
_SETTINGS = 7  # the type of a unit with the sequence's settings
_EXTENDED_ASPECT = 255
_MP4_VERSION = b"\x01"  # the first byte of the extra data of MP4; data with start codes begins with 0


def h264_reordering(context: Any) -> int:
    """Return `max_num_reorder_frames` of a codec context's extra data; 0 where it states none, and for other codecs."""
    extradata = context.extradata if context.name == "h264" else None
    for unit in _units(extradata or b""):
        if unit and unit[0] & 0x1F == _SETTINGS:
            try:
                return _Settings(unit[1:]).reordering()
            except (IndexError, ValueError):  # cut off
                return 0
    return 0


def _units(extradata: bytes) -> Iterator[bytes]:
    """Yield the NAL units of H.264 extra data: of MP4 (ISO/IEC 14496-15, 5.3.3.1.2) those of the sequence, else all."""
    if extradata[:1] != _MP4_VERSION:
        yield from re.split(rb"\x00\x00\x01", extradata)  # start codes
        return
    at = 6
    for _ in range(extradata[5] & 0x1F if len(extradata) > at else 0):
        start, size = at + 2, int.from_bytes(extradata[at : at + 2], "big")
        at = start + size
        yield extradata[start:at]


class _Settings:
    """Reads the fields of a sequence parameter set in order (ITU-T H.264, 7.3.2.1.1 and E.1.1)."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")  # without emulation prevention
        self._bits = "".join(f"{byte:08b}" for byte in plain)
        self._at = 0

    def _skip(self, bits: int) -> None:
        self._at += bits

    def _flag(self) -> bool:
        self._at += 1
        return self._bits[self._at - 1] == "1"

    def _number(self) -> int:
        """An unsigned Exp-Golomb number; a signed one takes the same bits."""
        zeros = 0
        while not self._flag():
            zeros += 1
        self._at += zeros
        return int("1" + self._bits[self._at - zeros : self._at], 2) - 1

    def _numbers(self, count: int) -> None:
        for _ in range(count):
            self._number()

    def reordering(self) -> int:
        """Return the number of reordered frames; 0 if the settings do not state it."""
        profile = int(self._bits[:8], 2)
        self._skip(24)
        self._number()
        if profile in _HIGH_PROFILES:
            self._chroma_format()
        self._number()
        self._order_count()
        self._number()
        self._skip(1)
        self._numbers(2)
        if not self._flag():  # fields
            self._skip(1)
        self._skip(1)
        if self._flag():  # cropping
            self._numbers(4)
        return self._usability() if self._flag() else 0

    def _chroma_format(self) -> None:
        chroma = self._number()
        if chroma == 3:
            self._skip(1)
        self._numbers(2)
        self._skip(1)
        if self._flag():
            for number in range(12 if chroma == 3 else 8):
                if self._flag():
                    self._scaling_list(16 if number < 6 else 64)

    def _scaling_list(self, size: int) -> None:
        last = following = 8
        for _ in range(size):
            if following:
                code = self._number()
                following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
            last = following or last

    def _order_count(self) -> None:
        kind = self._number()
        if kind == 0:
            self._number()
        elif kind == 1:
            self._skip(1)
            self._numbers(2)
            self._numbers(self._number())

    def _usability(self) -> int:
        if self._flag() and self._byte() == _EXTENDED_ASPECT:
            self._skip(32)
        if self._flag():  # overscan
            self._skip(1)
        if self._flag():  # colors
            self._skip(4)
            if self._flag():
                self._skip(24)
        if self._flag():  # position of chroma
            self._numbers(2)
        if self._flag():  # rate
            self._skip(65)
        buffers = [self._buffer() for _ in range(2)]
        self._skip(any(buffers) + 1)
        if not self._flag():
            return 0
        self._skip(1)
        self._numbers(4)
        return self._number()

    def _byte(self) -> int:
        self._at += 8
        return int(self._bits[self._at - 8 : self._at], 2)

    def _buffer(self) -> bool:
        if not self._flag():
            return False
        count = self._number() + 1
        self._skip(8)
        for _ in range(count):
            self._numbers(2)
            self._skip(1)
        self._skip(20)
        return True
