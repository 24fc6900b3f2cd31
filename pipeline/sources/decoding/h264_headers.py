"""What the headers of H.264 tell: by how many frames its encoder reorders, and where frames are lost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

# Profiles whose settings also describe the chroma format (ITU-T H.264, 7.3.2.1.1).
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135)
# Types of units: a slice (of a key frame, which refers to no other), the sequence's settings.
_SLICES, _KEY_SLICE, _SETTINGS = (1, 5), 5, 7
_START = b"\0\0\1"
# Bytes that hold the part of a slice's header that is read, and the settings.
_HEADER, _LONGEST_SETTINGS = 24, 1024
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


class LossWatch:
    """Finds lost frames of H.264 to which others refer, by their numbers. Decoders hide them."""

    def __init__(self, extradata: bytes | None) -> None:
        self._bits = 0  # of a frame's number; 0: unknown, or numbers may be left out
        self._last: int | None = None
        self._length = _length_size(extradata or b"")
        for unit in _units(extradata or b""):
            if unit and unit[0] & 0x1F == _SETTINGS:
                self._configure(unit)

    def restart(self) -> None:
        """Packets were left out on purpose."""
        self._last = None

    def is_after_loss(self, data: bytes) -> bool:
        """Return whether a frame follows a lost one to which others refer. Frames come in decoding order."""
        for at in _starts(data, self._length):
            kind = data[at] & 0x1F
            if kind in _SLICES:
                with suppress(IndexError):
                    return self._is_gap(data[at], _Bits(data[at + 1 : at + _HEADER]))
            if kind == _SETTINGS:
                self._configure(data[at : at + _LONGEST_SETTINGS])
        return False

    def _configure(self, unit: bytes) -> None:
        settings = _Settings(unit[1:])
        with suppress(IndexError, ValueError):
            settings.reordering()
        self._bits = 0 if settings.may_leave_out else settings.number_bits

    def _is_gap(self, unit: int, header: _Bits) -> bool:
        """Return whether the number of a frame is not that of the last frame that others refer to, nor the next."""
        if not self._bits:
            return False
        for _ in range(3):  # the place of the slice, its type, its parameters
            header.number()
        number, most = header.value(self._bits), 1 << self._bits
        ahead = 0 if self._last is None or unit & 0x1F == _KEY_SLICE else (number - self._last) % most
        is_reference = unit & 0x60
        self._last = number if is_reference else (number - 1) % most if self._last is None or ahead > 1 else self._last
        return ahead > 1


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


def _length_size(extradata: bytes) -> int:
    """Return the bytes of the length before each unit, as MP4 and FLV have it; 0 for start codes."""
    return (extradata[4] & 3) + 1 if extradata[:1] == _MP4_VERSION and len(extradata) > 4 else 0


def _starts(data: bytes, length_size: int) -> Iterator[int]:
    """Yield the place of the first byte of each unit of a frame."""
    at = 0
    while length_size and at + length_size < len(data):
        yield at + length_size
        at += length_size + int.from_bytes(data[at : at + length_size], "big")
    while not length_size and 0 <= (at := data.find(_START, at)) < len(data) - len(_START):
        at += len(_START)
        yield at


class _Bits:
    """Reads the fields of a unit in order, after its first byte."""

    def __init__(self, data: bytes) -> None:
        plain = data.replace(b"\0\0\3", b"\0\0")  # without emulation prevention
        self._bits = "".join(f"{byte:08b}" for byte in plain)
        self._at = 0

    def value(self, bits: int) -> int:
        """Return the number that the next `bits` bits are. Raises IndexError behind the end."""
        self._at += bits
        if self._at > len(self._bits):
            raise IndexError
        return int(self._bits[self._at - bits : self._at], 2)

    def number(self) -> int:
        """Return an unsigned Exp-Golomb number; a signed one takes the same bits."""
        zeros = 0
        while not self.value(1):
            zeros += 1
        return (1 << zeros) - 1 + (self.value(zeros) if zeros else 0)


class _Settings(_Bits):
    """Reads the fields of a sequence parameter set in order (ITU-T H.264, 7.3.2.1.1 and E.1.1).

    `number_bits` are those of a frame's number, 0 where they are not known; `may_leave_out`: numbers may be left out.
    """

    number_bits, may_leave_out = 0, False

    def _skip(self, bits: int) -> None:
        self._at += bits

    def _flag(self) -> bool:
        return bool(self.value(1))

    def _numbers(self, count: int) -> None:
        for _ in range(count):
            self.number()

    def reordering(self) -> int:
        """Return the number of reordered frames; 0 if the settings do not state it."""
        profile = self.value(8)
        self._skip(16)
        self.number()
        has_planes = profile in _HIGH_PROFILES and self._has_planes()
        number_bits = self.number() + 4
        self._order_count()
        self.number()
        self.may_leave_out = self._flag()
        self.number_bits = 0 if has_planes else number_bits
        self._numbers(2)
        if not self._flag():  # fields
            self._skip(1)
        self._skip(1)
        if self._flag():  # cropping
            self._numbers(4)
        return self._usability() if self._flag() else 0

    def _has_planes(self) -> bool:
        """Read the chroma format, and return whether the colors are coded apart."""
        chroma = self.number()
        has_planes = chroma == 3 and self._flag()
        self._numbers(2)
        self._skip(1)
        if self._flag():
            for number in range(12 if chroma == 3 else 8):
                if self._flag():
                    self._scaling_list(16 if number < 6 else 64)
        return has_planes

    def _scaling_list(self, size: int) -> None:
        last = following = 8
        for _ in range(size):
            if following:
                code = self.number()
                following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
            last = following or last

    def _order_count(self) -> None:
        kind = self.number()
        if kind == 0:
            self.number()
        elif kind == 1:
            self._skip(1)
            self._numbers(2)
            self._numbers(self.number())

    def _usability(self) -> int:
        if self._flag() and self.value(8) == _EXTENDED_ASPECT:
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
        return self.number()

    def _buffer(self) -> bool:
        if not self._flag():
            return False
        count = self.number() + 1
        self._skip(8)
        for _ in range(count):
            self._numbers(2)
            self._skip(1)
        self._skip(20)
        return True
